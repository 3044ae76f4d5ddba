"""Workers read and compute as their caller would, whatever backend started them."""

import io
import os
import pkgutil
import subprocess
import sys
import threading
from importlib import import_module

import joblib
import numpy as np
import pytest
from helpers.both import BOTH
from helpers.plain_format import plain_format  # noqa: F401
from PIL import Image, ImageFile, PngImagePlugin
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.inputs._pillow import PillowState


def save(folder, seed, name="picture.png"):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return (folder / name).read_bytes()


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory):
    """Folders with other pictures under the same names; workers are in the first."""
    folder = tmp_path_factory.mktemp("folders")
    old, new = folder / "old", folder / "new"
    names = [f"{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        save(old, i, name)
        save(new, 100 + i, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(old)
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
        transformer = ImageDiffusionFeatureTransformer(n_jobs=2).fit(names)
        transformer.transform(names)
    return old, new, names


def test_relative_paths_start_from_the_callers_folder(two_folders, monkeypatch):
    _, new, names = two_folders
    monkeypatch.chdir(new)
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(names)
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32")
    for cells in (names, [{"bytes": None, "path": name} for name in names]):
        found = parallel.fit_transform(cells)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_workers_of_a_search_start_from_its_folder_too(two_folders, monkeypatch):
    _, new, names = two_folders
    monkeypatch.chdir(new)
    y = np.arange(40) % 2
    options = {"cache": "features.db", "dtype": "float32"}
    model = make_pipeline(
        ImageDiffusionFeatureTransformer(**options), RidgeClassifier()
    )
    found = cross_val_predict(
        model, names, y, cv=2, n_jobs=2, method="decision_function"
    )
    assert (new / "features.db").exists()
    plain = make_pipeline(
        ImageDiffusionFeatureTransformer(dtype="float32"), RidgeClassifier()
    )
    expected = cross_val_predict(plain, names, y, cv=2, method="decision_function")
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)


def test_a_relative_cache_is_the_callers(two_folders, monkeypatch):
    old, new, names = two_folders
    monkeypatch.chdir(new)
    transformer = ImageDiffusionFeatureTransformer(n_jobs=2, cache="features.db")
    transformer.fit_transform(names)
    (new / "features.db").unlink()
    assert not (old / "features.db").exists()


def truncated(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()[:-300]


def test_truncated_pictures_are_read_by_workers_where_the_caller_allows_them(
    monkeypatch,
):
    cells = [truncated(seed) for seed in range(40)]
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32").fit(cells)
    with pytest.raises(ValueError, match=r"row [0-9]+ of X"):
        parallel.transform(cells)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(cells)
    np.testing.assert_allclose(
        parallel.transform(cells), expected, rtol=1e-3, atol=1e-5
    )
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(ValueError, match=r"row [0-9]+ of X"):
        parallel.transform(cells)


@pytest.mark.parametrize("limit", [100, 10**9])
def test_the_largest_picture_allowed_is_the_callers(limit, clipart, monkeypatch):
    cells = list(clipart[0]["image"].drop_duplicates()[:40])
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32").fit(cells)
    parallel.transform(cells)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if limit == 100:
        with pytest.raises(ValueError, match="is too large"):
            parallel.transform(cells)
    else:
        assert np.isfinite(parallel.transform(cells)).all()


def test_plug_ins_of_the_caller_are_the_workers(plain_format):  # noqa: F811
    cells = [b"PLAIN" + bytes([seed] * 16) for seed in range(20, 60)]
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32")
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(cells)
    found = parallel.fit_transform(cells)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_state_of_pillow_is_put_back(monkeypatch):
    state = PillowState.here()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 9)
    with pytest.raises(KeyError), state.applied():
        assert Image.MAX_IMAGE_PIXELS != 7
        raise KeyError
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (7, 9)


class ListBackend(joblib.parallel.ThreadingBackend):
    """A backend that gives results all at once, as several of joblib's do."""

    supports_return_generator = False


@BOTH
@pytest.mark.parametrize("backend", ["list", "threading", "loky"])
@pytest.mark.parametrize("where", ["memory", "file"])
def test_any_backend_of_joblib_gives_the_features_of_one_process(
    kind, column, backend, where, cells, cache
):
    joblib.register_parallel_backend("list", ListBackend)
    X = list(cells(column, 50)) + list(cells(column, 3))
    expected = kind(dtype="float32", timestep=[0, 50]).fit_transform(X)
    transformer = kind(
        n_jobs=2,
        dtype="float32",
        timestep=[0, 50],
        cache=cache,
    )
    with joblib.parallel_config(backend=backend):
        found = transformer.fit_transform(X)
        again = transformer.transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(again, found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_workers_on_another_machine_need_no_file_of_the_caller(
    where, cells, cache, tmp_path, monkeypatch, pass_counter
):
    from sklearn_difffeat.extraction import _workers

    X = list(cells("image", 40))
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(X)
    paths = [tmp_path / f"{i}.png" for i in range(len(X))]
    for path, content in zip(paths, X, strict=True):
        path.write_bytes(content)
    work, opened = _workers._work, []

    def far(job, rows, shared):
        # The machine is another one, and none of the caller's files is there.
        rows.cells = [cell | {"path": "/lost/one.png"} for cell in rows.cells]
        with monkeypatch.context() as patch:
            patch.setattr(_workers, "machine", lambda: "another")
            received, rows, is_stored = work(job, rows, shared)
        opened.append(is_stored)
        return received, rows, is_stored

    monkeypatch.setattr(_workers, "_work", far)
    monkeypatch.setattr(_workers, "LARGEST_LOAD", sum(map(len, X[:10])))
    joblib.register_parallel_backend("list", ListBackend)
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32", cache=cache)
    before = pass_counter["rows"]
    with joblib.parallel_config(backend="list"):
        # One task at a time: this process stands for two machines.
        monkeypatch.setattr(
            _workers, "_parallel", lambda n_jobs: joblib.Parallel(n_jobs=1)
        )
        found = parallel.fit(paths).transform(paths)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert len(opened) > 2 and not any(opened)
    assert pass_counter["rows"] - before == len(X)
    # The caller has kept what came back.
    parallel.set_params(n_jobs=None).transform(paths)
    assert pass_counter["rows"] - before == len(X)


@pytest.mark.parametrize(
    "answer, error",
    [
        (lambda: "0.0.3", "has sklearn_difffeat 0.0.3; install sklearn_difffeat"),
        (lambda: import_module("no_such_module"), "cannot import sklearn_difffeat"),
    ],
    ids=["another version", "none"],
)
def test_workers_have_to_have_the_package(answer, error, cells, monkeypatch):
    from sklearn_difffeat.extraction import _workers

    caller, resolve = threading.get_ident(), pkgutil.resolve_name

    def answered(name):
        here = threading.get_ident() == caller
        return resolve(name) if here else answer()

    monkeypatch.setattr(_workers.pkgutil, "resolve_name", answered)
    joblib.register_parallel_backend("list", ListBackend)
    transformer = ImageDiffusionFeatureTransformer(n_jobs=2).fit(cells("image", 2))
    with (
        joblib.parallel_config(backend="list"),
        pytest.raises(ImportError, match=f"A worker of joblib's ListBackend {error}"),
    ):
        transformer.transform(cells("image", 40))


def test_a_damaged_picture_has_its_name_on_another_machine_too(tmp_path):
    path = tmp_path / "damaged.png"
    path.write_bytes(b"no picture")
    joblib.register_parallel_backend("list", ListBackend)
    parallel = ImageDiffusionFeatureTransformer(n_jobs=2).fit([path])
    with (
        joblib.parallel_config(backend="list"),
        pytest.raises(ValueError, match=r"row 0 of X: .*damaged\.png"),
    ):
        parallel.transform([path])


def test_embedded_backbones_are_found_where_the_package_lies(monkeypatch):
    import pickle

    from sklearn_difffeat.checkpoints import _source

    sent = pickle.dumps(_source.locate("dit-tiny"))
    elsewhere = _source.Path("/elsewhere")
    monkeypatch.setattr(_source, "EMBEDDED_ROOT", elsewhere)
    assert pickle.loads(sent).location == str(elsewhere / "dit-tiny")


def test_a_folder_that_a_worker_lacks_is_named_with_the_machine(dit_folder, tmp_path):
    import platform
    import shutil

    from sklearn_difffeat.checkpoints._source import locate

    shutil.copytree(dit_folder, tmp_path / "model")
    source = locate(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=f"no folder .*{platform.node()}"):
        _ = source.fingerprint


FORKING = """
import joblib, numpy as np
from sklearn_difffeat import ImageDiffusionFeatureTransformer
X = joblib.load("cells.joblib")
plain = ImageDiffusionFeatureTransformer(dtype="float32", block=2).fit(X)
expected = plain.transform(X)
with joblib.parallel_config("multiprocessing"):
    for cache in (None, True, "features.db"):
        parallel = plain.set_params(n_jobs=2, cache=cache)
        np.testing.assert_allclose(parallel.fit(X).transform(X), expected, 1e-3, 1e-5)
print("done")
"""


def test_processes_that_joblib_forks_after_a_pass_compute_the_same(cells, tmp_path):
    joblib.dump(list(cells("image", 50)), tmp_path / "cells.joblib")
    found = subprocess.run(
        [sys.executable, "-c", FORKING],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.stdout.strip() == "done", found.stderr


def test_an_error_while_cells_are_handed_out_does_not_leave_workers_waiting(cells):
    X = [*cells("image", 50), np.full((8, 8), np.nan), *cells("image", 5)]
    transformer = ImageDiffusionFeatureTransformer(n_jobs=2).fit(X)
    with pytest.raises(ValueError, match="row 50 of X"):
        transformer.transform(X)


def test_arrays_that_a_worker_may_not_write_do_not_stop_it(cells, monkeypatch):
    from sklearn_difffeat.extraction import _workers

    part = _workers._part

    def read_only(*arguments):
        sent = part(*arguments)
        for name in ("numbers", "needed", "truncated", "overflowed"):
            getattr(sent, name).flags.writeable = False
        return sent

    monkeypatch.setattr(_workers, "_part", read_only)
    X = list(cells("image", 40))
    X[1] = memoryview(X[1])
    transformer = ImageDiffusionFeatureTransformer(n_jobs=2, dtype="float32")
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(X)
    found = transformer.fit_transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
