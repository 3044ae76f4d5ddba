"""Processes forked after their parent computed: they compute, or say what to do."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.both import BOTH
from helpers.stores import read_back, some_chunk

from sklearn_difffeat import (
    FeatureStore,
    FusionClassifier,
    TextDiffusionFeatureTransformer,
    _process,
    release_backbones,
)
from sklearn_difffeat.backbones import _registry, load_backbone, locate_backbone
from sklearn_difffeat.store import _database
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._rows import StoredRows

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system does not fork"
)
ALIKE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def several_threads():
    """With one thread torch has no pool that a fork could lose."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    # Starts the pool.
    torch.randn(512, 512) @ torch.randn(512, 512)
    torch.randn(2**20).exp()
    yield
    torch.set_num_threads(before)


def in_fork(function, timeout=120):
    """Call a function in a forked process; its error is the test's."""
    context = multiprocessing.get_context("fork")
    error, send = context.Pipe(duplex=False)

    def run():
        try:
            function()
        except BaseException:
            send.send(traceback.format_exc())
            raise SystemExit(1) from None

    process = context.Process(target=run)
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"the forked process was not done after {timeout} s")
    if process.exitcode:
        pytest.fail(error.recv() if error.poll() else f"exit {process.exitcode}")


@BOTH
@pytest.mark.parametrize("where", ["none", "memory", "file"])
def test_a_forked_process_gives_the_features_of_its_parent(
    kind, column, where, cells, cache, capfd
):
    X = list(cells(column, 4))
    expected = kind(dtype="float32").fit_transform(X)
    options = {"dtype": "float32", "cache": None if where == "none" else cache}
    transformer = kind(**options).fit(X)
    transformer.transform(X[:2])

    def child():
        np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)
        np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)
        in_fork(grandchild)

    def grandchild():
        np.testing.assert_allclose(
            transformer.transform(X[::-1]), expected[::-1], **ALIKE
        )

    capfd.readouterr()
    in_fork(child)
    assert capfd.readouterr().err == ""
    np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)


@BOTH
def test_a_pool_of_forked_processes_transforms(kind, column, cells, cache):
    X = list(cells(column, 4))
    transformer = kind(dtype="float32", cache=cache).fit(X)
    expected = transformer.transform(X)
    pieces = [X[start : start + 1] for start in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(transformer.transform, pieces).get(timeout=120)
    np.testing.assert_allclose(np.vstack(found), expected, **ALIKE)


def test_the_loaded_model_is_shared_with_a_forked_process(cells, pass_counter):
    X = list(cells("text", 4))
    transformer = TextDiffusionFeatureTransformer().fit(X)
    transformer.transform(X)

    def child():
        transformer.transform(X)
        assert pass_counter["loads"] == 1

    in_fork(child)


@BOTH
def test_a_fork_in_the_middle_of_another_threads_pass_computes(kind, column, cells):
    X = list(cells(column, 4))
    transformer = kind(dtype="float32", block=2).fit(X)
    expected = transformer.transform(X)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            kind(dtype="float32", block=1, batch_size=2).fit_transform(X)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            in_fork(
                lambda: np.testing.assert_allclose(
                    transformer.transform(X), expected, **ALIKE
                )
            )
    finally:
        stop.set()
        thread.join(60)


class HeldByAnotherThread:
    def __init__(self, lock):
        self.lock, self.stop, held = lock, threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                self.stop.wait(300)

        self.thread = threading.Thread(target=hold)
        self.thread.start()
        held.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join(60)


def test_a_model_that_another_thread_did_not_let_go_of_is_loaded_anew(
    cells, monkeypatch, pass_counter
):
    X = list(cells("text", 4))
    transformer = TextDiffusionFeatureTransformer().fit(X)
    expected = transformer.transform(X)
    monkeypatch.setattr(_process, "WAIT_SECONDS", 0.05)
    (model,) = _registry._loaded.values()

    def stop_early(*args):
        raise RuntimeError("a hook of another thread's pass")

    def child():
        np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)
        assert pass_counter["loads"] == 2

    for lock in model.locks:
        with HeldByAnotherThread(lock):
            hook = model.stages[1].register_forward_hook(stop_early)
            in_fork(child)
            hook.remove()
    np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)


def test_a_fork_while_another_thread_loads_a_model_says_what_to_do(cells, monkeypatch):
    X = list(cells("text", 2))
    transformer = TextDiffusionFeatureTransformer().fit(X)
    transformer.transform(X)
    monkeypatch.setattr(_process, "WAIT_SECONDS", 0.05)

    def child():
        with pytest.raises(RuntimeError, match="another thread was loading a model"):
            transformer.transform(X)
        assert release_backbones() == 1

    fingerprint = transformer.backbone_fingerprint_
    for key, turn in list(_registry._turns.items()):
        if key[0] == fingerprint:
            with HeldByAnotherThread(turn):
                in_fork(child)


def test_no_lock_of_the_loaded_models_is_held_in_a_forked_process(cells, monkeypatch):
    X = list(cells("text", 2))
    transformer = TextDiffusionFeatureTransformer().fit(X)
    expected = transformer.transform(X)
    monkeypatch.setattr(_process, "WAIT_SECONDS", 0.05)

    def child():
        np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)
        assert release_backbones() == 1

    with HeldByAnotherThread(_registry._lock):
        in_fork(child)


@pytest.mark.parametrize("lock", ["of the connection", "of opening"])
def test_a_store_whose_lock_another_thread_holds_is_used_by_a_forked_process(
    lock, tmp_path, monkeypatch
):
    store = StoredRows(tmp_path / "features.db")
    chunk = some_chunk(store, [1])
    store.put([chunk])
    monkeypatch.setattr(_process, "WAIT_SECONDS", 0.05)

    def child():
        assert read_back(store, chunk, [1], block=0)[0, 0] == 100
        store.put([some_chunk(store, [2])])

    locks = {"of the connection": store.file.lock, "of opening": _database._open_lock}
    with HeldByAnotherThread(locks[lock]):
        in_fork(child)
    assert FeatureStore(store.path).describe()["rows"].sum() == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_a_forked_process_does_not_close_its_parents_connection(tmp_path):
    store = StoredRows(tmp_path / "features.db")
    store.put([some_chunk(store, [1])])

    def n_open():
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return links.count(store.path)

    before = n_open()

    def child():
        gc.collect()
        assert n_open() == before >= 1

    in_fork(child)


def test_reading_begun_before_a_fork_goes_on_without_the_parents_connection(tmp_path):
    store = StoredRows(tmp_path / "features.db")
    for number in (1, 2):
        store.put([some_chunk(store, [number])])
    one = some_chunk(store, [1]).one
    places, _ = store.find(one, [n.to_bytes(16, "big") for n in (1, 2)], 2)
    reading = store.read(places, [0])
    next(reading)
    parents = store.file

    def child():
        assert store.file is not parents
        assert not list(reading)
        assert not list(store.read(places, [0]))
        with Claims(store, [one], None, 2) as claims:
            claims.take([bytes(16)], np.ones((1, 1), bool))

    in_fork(child)
    assert len(list(reading)) == 1


LEAVING = """
import os, sys
sys.path.insert(0, sys.argv[2])
from sklearn_difffeat import FeatureStore
from sklearn_difffeat.store._rows import StoredRows
from helpers.stores import some_chunk
store = StoredRows(sys.argv[1])
store.put([some_chunk(store, [1])])
log = os.path.getsize(store.path + "-wal")
if os.fork() == 0:
    # Ends as a script does: every object is taken down.
    sys.exit(0)
_, status = os.wait()
assert status == 0
assert os.path.getsize(store.path + "-wal") == log > 0
store.put([some_chunk(store, [2])])
print(FeatureStore(store.path).describe()["rows"].sum())
"""


def test_a_forked_process_that_ends_leaves_its_parents_store_alone(tmp_path):
    command = [sys.executable, "-c", LEAVING, tmp_path / "features.db"]
    process = subprocess.run(
        [*command, str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.stdout.strip() == "2", process.stderr
    assert FeatureStore(tmp_path / "features.db").describe()["rows"].item() == 2


@pytest.mark.parametrize("device", [None, "cpu"])
def test_fusion_fits_in_a_process_forked_after_its_parent_fitted(device):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 300)).astype(np.float32)
    Y = (X[:, :3] + rng.normal(size=(4000, 3)) > 0).astype(int)
    expected = FusionClassifier(device=device).fit(X, Y).decision_function(X[:50])

    def child():
        found = FusionClassifier(device=device).fit(X, Y).decision_function(X[:50])
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)

    in_fork(child)


def test_a_process_whose_parent_used_torch_alone_computes(cells, monkeypatch):
    X = list(cells("text", 4))
    transformer = TextDiffusionFeatureTransformer().fit(X)
    expected = transformer.transform(X)
    release_backbones()
    monkeypatch.setattr(_process, "_used_torch", False)

    def child():
        assert torch.get_num_threads() == 2
        np.testing.assert_allclose(transformer.transform(X), expected, **ALIKE)
        assert torch.get_num_threads() == 1

    in_fork(child)


def test_a_parents_gpu_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    source, _ = locate_backbone("mdlm-tiny")
    with pytest.raises(RuntimeError, match="forked after its parent had used the GPU"):
        load_backbone(source, device="cuda:0", dtype=torch.float32)
    X = np.eye(4, dtype=np.float32)
    with pytest.raises(RuntimeError, match="start processes by the method 'spawn'"):
        FusionClassifier(device="cuda").fit(X, [0, 1, 0, 1])
    X = ["a red apple"]
    TextDiffusionFeatureTransformer(device="cpu").fit_transform(X)


def test_importing_the_package_imports_no_torch_and_sets_no_threads():
    code = (
        "import sys, os, sklearn_difffeat\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "torch.set_num_threads(2)\n"
        "if os.fork() == 0:\n"
        "    os._exit(torch.get_num_threads())\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "2", done.stderr
