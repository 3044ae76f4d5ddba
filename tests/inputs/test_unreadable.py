"""Cells that cannot be read: an error that names the row, or one counted NaN."""

import io
import warnings

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sklearn_difffeat import (
    FeatureStore,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bad_cells(folder):
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes(png(0)[:200])
    return {
        "no file": "no/such.png",
        "folder": str(folder),
        "empty": folder / "empty.png",
        "half": str(folder / "half.png"),
        "not a picture": b"not a picture",
        "dict": {"bytes": None, "path": "no/such.png"},
        "array": np.zeros((3, 64, 64), np.uint8),
        "range": np.full((8, 8), 7.5),
        "nan": np.full((8, 8), np.nan),
        "PIL": Image.open(io.BytesIO(png(0)[:200])),
        "program": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "base64": "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
        "null": "a\0b.png",
        "long": "x" * 5000,
    }


KINDS = [
    "no file", "folder", "empty", "half", "not a picture", "dict", "array", "range",
    "nan", "PIL", "program", "base64", "null", "long",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_picture_is_an_error_or_a_row_of_nan(kind, tmp_path):
    cells = [png(1), bad_cells(tmp_path)[kind], png(2)]
    with pytest.raises((ValueError, OSError), match="row 1 of X") as caught:
        ImageDiffusionFeatureTransformer().fit_transform(cells)
    assert len(str(caught.value)) < 500
    transformer = ImageDiffusionFeatureTransformer(unreadable="nan")
    with pytest.warns(UserWarning, match=r"1 of 3 images could not be read .* rows 1 "):
        found = transformer.fit_transform(cells)
    assert np.isnan(found[1]).all()
    expected = transformer.transform([cells[0], cells[2]])
    np.testing.assert_allclose(found[[0, 2]], expected, rtol=1e-3, atol=1e-5)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(st.integers(0, 5), st.sampled_from(KINDS)), min_size=1, max_size=9
    ),
    st.sampled_from([None, True]),
)  # fmt: skip
def test_exactly_the_rows_that_cannot_be_read_are_nan(tmp_path, kinds, cache):
    FeatureStore().clear()
    bad = bad_cells(tmp_path)
    cells = [png(kind) if isinstance(kind, int) else bad[kind] for kind in kinds]
    is_bad = np.array([isinstance(kind, str) for kind in kinds])
    transformer = ImageDiffusionFeatureTransformer(unreadable="nan", cache=cache)
    transformer.fit(cells)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = transformer.transform(cells)
        assert (np.isnan(found).all(axis=1) == is_bad).all()
        assert (np.isnan(found).any(axis=1) == is_bad).all()
        assert len(seen) == is_bad.any()
        if is_bad.any():
            assert f"{is_bad.sum()} of {len(cells)} images" in str(seen[0].message)


def test_the_warning_names_the_first_rows_and_the_first_reason(tmp_path):
    cells = [png(0), *(f"no/such/{i}.png" for i in range(7)), png(1)]
    transformer = ImageDiffusionFeatureTransformer(unreadable="nan").fit(cells)
    with pytest.warns(
        UserWarning, match=r"7 of 9 .* rows 1, 2, 3, 4, 5, \.\.\. .*no/such/0\.png"
    ):
        transformer.transform(cells)


def test_a_lost_file_is_named_before_anything_is_passed(tmp_path, pass_counter):
    cells = [png(seed) for seed in range(5)] + [str(tmp_path / "lost.png")]
    with pytest.raises(FileNotFoundError, match="row 5 of X"):
        ImageDiffusionFeatureTransformer(batch_size=1).fit_transform(cells)
    assert pass_counter["rows"] == 0


def test_workers_survive_unreadable_files_too(tmp_path):
    bad = list(bad_cells(tmp_path).values())
    bad = [cell for cell in bad if not isinstance(cell, Image.Image)]
    cells = [png(seed) for seed in range(60)] + bad
    serial = ImageDiffusionFeatureTransformer(unreadable="nan", dtype="float32")
    parallel = ImageDiffusionFeatureTransformer(
        unreadable="nan", dtype="float32", n_jobs=2
    )
    for cache in (None, str(tmp_path / "features.db")):
        parallel.set_params(cache=cache)
        with pytest.warns(UserWarning, match=f"{len(bad)} of {len(cells)} images"):
            found = parallel.fit_transform(cells)
        with pytest.warns(UserWarning, match=f"{len(bad)} of {len(cells)} images"):
            expected = serial.fit_transform(cells)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_worker_that_cannot_read_says_so_and_what_was_done_is_kept(cache):
    cells = [png(seed) for seed in range(70)] + [b"no picture"]
    transformer = ImageDiffusionFeatureTransformer(cache=cache, n_jobs=2).fit(cells)
    with pytest.raises(ValueError, match="row 70 of X"):
        transformer.transform(cells)
    assert FeatureStore(cache).describe()["rows"].sum() >= 32


def test_precompute_passes_over_what_cannot_be_read(cache, pass_counter):
    cells = [png(0), b"no picture", png(1)]
    transformer = ImageDiffusionFeatureTransformer(cache=cache, unreadable="nan")
    with pytest.warns(UserWarning, match="1 of 3 images could not be read"):
        transformer.precompute(cells)
    assert pass_counter["rows"] == 2


def test_the_classifier_reads_an_unreadable_picture_as_an_absent_modality():
    cells = [png(seed) for seed in range(8)]
    cells[3] = b"no picture"
    with pytest.warns(UserWarning, match="1 of 8"):
        Z = ImageDiffusionFeatureTransformer(unreadable="nan").fit_transform(cells)
    modalities = {"image": Z.shape[1], "text": 1}
    Z = np.hstack([Z, np.ones((8, 1), np.float32)])
    y = np.arange(8) % 2
    model = FusionClassifier(modalities=modalities).fit(Z, y)
    assert not model.modality_contributions(Z)["image"][3].any()


def test_a_cell_of_another_kind_is_an_error_whatever_unreadable_says():
    with pytest.raises(TypeError, match="row 1 of X"):
        ImageDiffusionFeatureTransformer(unreadable="nan").fit([png(0), 3])
    with pytest.raises(TypeError, match="row 1 of X"):
        TextDiffusionFeatureTransformer(unreadable="nan").fit(["a", 3])
    with pytest.raises(ValueError, match="'unreadable' parameter"):
        ImageDiffusionFeatureTransformer(unreadable="drop").fit([png(0)])


def test_texts_that_are_not_unicode_can_become_nan():
    cells = ["a bird", "b \ud800", "a boat"]
    transformer = TextDiffusionFeatureTransformer(unreadable="nan").fit(cells)
    with pytest.warns(UserWarning, match=r"1 of 3 texts .* rows 1 of X .*Unicode"):
        found = transformer.transform(cells)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        assert np.isnan(transformer.transform(cells[1:2])).all()


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "a data URI"),
        ("iVBORw0KGgo" + "A" * 4_000_000, "base64"),
        ("/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgI", "base64"),
        ("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AA\nAAA=", "base64"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a data URI"),
        (b"iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYA", "base64"),
        ("https://example.org/a.png", "is an address"),
    ],
)
def test_a_picture_written_as_text_is_named_as_such_in_a_short_message(cell, words):
    with pytest.raises((ValueError, OSError), match=f"row 0 of X: .*{words}") as caught:
        ImageDiffusionFeatureTransformer().fit_transform([cell])
    assert len(str(caught.value)) < 200


def test_a_path_that_is_no_picture_in_base64_is_still_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("iVBORw0KGgo.png", "data", "Qk0", "UklGR"):
        (tmp_path / name).write_bytes(png(0))
        ImageDiffusionFeatureTransformer().fit_transform([name])
        with pytest.raises(FileNotFoundError, match="there is no file"):
            ImageDiffusionFeatureTransformer().fit_transform([name + "-lost"])


def test_a_fitted_transformer_with_unreadable_survives_a_dump(tmp_path):
    transformer = ImageDiffusionFeatureTransformer(unreadable="nan").fit([png(0)])
    joblib.dump(transformer, tmp_path / "t.joblib")
    with pytest.warns(UserWarning, match="1 of 1 images"):
        found = joblib.load(tmp_path / "t.joblib").transform([b"no picture"])
    assert np.isnan(found).all()
