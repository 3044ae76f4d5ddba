"""How far it is from ``transform`` to the model."""

import sys
from pathlib import Path

import numpy as np
import pytest

import sklearn_difffeat
from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.backbones import load_backbone

PACKAGE = str(Path(sklearn_difffeat.__file__).parent)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def frames_above(frame):
    """Return our functions that are running, the innermost first, up to transform."""
    names = []
    while frame.f_code.co_name != "transform":
        if frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


@pytest.mark.parametrize(
    ("kind", "folder", "X"),
    [
        (ImageDiffusionFeatureTransformer, "dit_folder", PICTURES),
        (TextDiffusionFeatureTransformer, "bert_folder", ["a red apple", "two birds"]),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_seven_calls_lead_from_transform_to_the_model(
    kind, folder, X, kept, cache, request, monkeypatch
):
    from sklearn_difffeat.extraction import _job

    found = []

    def watched(*args, **options):
        backbone = load_backbone(*args, **options)
        run = backbone.model.forward

        def forward(*inputs, **named):
            found.append(frames_above(sys._getframe(1)))
            return run(*inputs, **named)

        monkeypatch.setattr(backbone.model, "forward", forward)
        return backbone

    monkeypatch.setattr(_job, "load_backbone", watched)
    backbone = request.getfixturevalue(folder)
    kind(backbone, timestep=[1, 2], cache=cache if kept else None).fit(X).transform(X)
    assert len(found) == 2
    for names in found:
        assert len(names) <= 7, names
        assert names[-1] == "extract"
