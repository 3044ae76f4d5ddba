"""Count rows through models and models loaded, over all processes of a search.

Importing this module makes every backbone append a line to the file that the
environment variable ``DIFFFEAT_COUNTS`` names, whenever rows enter a model and whenever
a model is loaded. joblib's workers import it when they unpickle one of the estimators
below, so they count too:

    with counting() as counts:
        GridSearchCV(CountedImageTransformer(), grid, n_jobs=2).fit(X, Y)
        print(counts())

Workers keep their environment and their models for the next search; ``fresh_start``
lets go of both, so that the next search's loads are counted anew. The jobs that a
transformer itself starts (its parameter ``n_jobs``) unpickle no estimator and are not
counted.
"""

import functools
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from joblib.externals.loky import get_reusable_executor

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    release_backbones,
)
from sklearn_difffeat.backbones.dit import DiTBackbone
from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

VARIABLE = "DIFFFEAT_COUNTS"


class Counts(NamedTuple):
    """Rows that entered a model, and models loaded."""

    forwards: int
    loads: int


class CountedImageTransformer(ImageDiffusionFeatureTransformer):
    """The image transformer, under a name that brings the counting along."""


class CountedTextTransformer(TextDiffusionFeatureTransformer):
    """The text transformer, under a name that brings the counting along."""


def read_counts(path):
    """Add up the lines of a file; a file that nobody wrote to counts nothing."""
    totals = {"forwards": 0, "loads": 0}
    if os.path.exists(path):
        for line in Path(path).read_text().splitlines():
            what, count, _process = line.split()
            totals[what] += int(count)
    return Counts(**totals)


@contextmanager
def counting():
    """Count from here on; what is yielded returns the counts so far."""
    fresh_start()
    before = os.environ.get(VARIABLE)
    handle, path = tempfile.mkstemp(prefix="difffeat-counts-")
    os.close(handle)
    os.environ[VARIABLE] = path
    try:
        yield lambda: read_counts(path)
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before
        os.remove(path)


def fresh_start():
    """Let go of the models loaded here, and of joblib's workers with theirs."""
    release_backbones()
    get_reusable_executor().shutdown(wait=True)


def _note(what, count):
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    # One short write in append mode: lines of several processes do not mix.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, f"{what} {count} {os.getpid()}\n".encode())
    finally:
        os.close(handle)


def _count(kind):
    run, load = kind.run, kind.load.__func__
    # Another copy of this module, imported under another name, may count already.
    if getattr(run, "_is_counted", False):
        return

    @functools.wraps(run)
    def counted_run(self, inputs, *arguments):
        _note("forwards", len(getattr(inputs, "ids", inputs)))
        return run(self, inputs, *arguments)

    @functools.wraps(load)
    def counted_load(cls, *arguments, **options):
        _note("loads", 1)
        return load(cls, *arguments, **options)

    counted_run._is_counted = True
    kind.run, kind.load = counted_run, classmethod(counted_load)


_count(DiTBackbone)
_count(MaskedLMBackbone)
