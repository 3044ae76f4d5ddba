"""A store that is deleted, replaced, cleared or cut while it is in use."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.both import BOTH
from helpers.stores import digests, needing, read_back, some_chunk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones.dit import DiTBackbone
from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone
from sklearn_difffeat.store import _database
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._rows import StoredRows

IN_USE = "was deleted or replaced while it was in use; call again"


@pytest.fixture
def store(tmp_path):
    return StoredRows(tmp_path / "features.db")


def delete(store, *, all_files=True):
    for end in ("", "-wal", "-shm") if all_files else ("",):
        Path(store.path + end).unlink(missing_ok=True)


def replace(store):
    """Put another store there, with other rows under the same numbers."""
    other = StoredRows(store.path + ".other")
    other.put([some_chunk(other, [51, 52])])
    other.file.close()
    delete(store)
    os.rename(other.path, store.path)


def move_folder(store):
    folder = os.path.dirname(store.path)
    os.rename(folder, folder + "-moved")


HARMS = pytest.mark.parametrize(
    "harm",
    [delete, lambda store: delete(store, all_files=False), replace, move_folder],
    ids=["deleted", "file deleted", "replaced", "folder moved"],
)


@HARMS
def test_every_call_in_the_middle_of_use_says_that_the_store_was_deleted(store, harm):
    chunk = some_chunk(store, [1, 2])
    store.put([chunk])
    places, _ = store.find(chunk.one, digests(1, 2), 2)
    started = store.read(places, [0])
    with pytest.raises(FileNotFoundError, match=IN_USE):
        with Claims(store, [chunk.one], None, 2) as claims:
            harm(store)
            claims.take(digests(3), needing(1))
    calls = [
        lambda: store.find(chunk.one, digests(1), 2),
        lambda: list(store.read(places, [0])),
        lambda: list(started),
        lambda: store.put([chunk]),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=IN_USE):
            call()


@pytest.mark.parametrize("all_files", [True, False])
def test_the_next_use_makes_a_deleted_store_anew(store, all_files):
    store.put([some_chunk(store, [1, 2])])
    delete(store, all_files=all_files)
    store = StoredRows(store.path)
    chunk = some_chunk(store, [3])
    store.put([chunk])
    assert np.isnan(read_back(store, chunk, [1, 3], 0)[:, 0]).tolist() == [True, False]
    assert FeatureStore(store.path).describe()["rows"].item() == 1


def test_a_store_made_anew_takes_nothing_of_the_log_of_a_deleted_one(store):
    command = [sys.executable, "-c", WRITER, store.path, str(Path(__file__).parents[1])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline().strip() == "written"
        before = (
            os.stat(store.path + "-shm").st_ino,
            os.stat(store.path + "-wal").st_ino,
        )
        delete(store, all_files=False)
        store = StoredRows(store.path)
        chunk = some_chunk(store, [1])
        store.put([chunk])
        after = os.stat(store.path + "-shm").st_ino, os.stat(store.path + "-wal").st_ino
        assert not set(before) & set(after)
        other.communicate()
    assert read_back(store, chunk, [1, 5], block=0)[0, 0] == 100
    assert FeatureStore(store.path).describe()["rows"].item() == 1


def test_an_error_of_sqlite_in_a_deleted_file_says_that_it_was_deleted(store):
    file = store.file
    with pytest.raises(FileNotFoundError, match=IN_USE), file.reading() as connection:
        delete(store)
        connection.execute("SELECT * FROM what_is_not_there")


def test_another_database_written_over_a_store_is_an_error(store):
    with pytest.raises(ValueError, match="not a feature store or is damaged"):
        with store.file.reading() as connection:
            connection.execute("SELECT * FROM what_is_not_there")


def test_places_are_those_of_one_file(store):
    chunk = some_chunk(store, [1, 2])
    store.put([chunk])
    places, _ = store.find(chunk.one, digests(1, 2), 2)
    replace(store)
    store = StoredRows(store.path)
    assert not list(store.read(places, [0]))
    assert read_back(store, chunk, [51], block=0)[0, 0] == 5100


ACTS = st.sampled_from(["put", "find", "read", "use", "clear", "delete", "replace"])


@given(st.lists(st.tuples(ACTS, st.integers(1, 4)), max_size=14))
@settings(max_examples=60, deadline=None)
@example([("put", 1), ("find", 1), ("replace", 1), ("use", 1), ("read", 1)])
@example([("put", 1), ("find", 1), ("clear", 1), ("put", 2), ("read", 1)])
@example([("put", 1), ("find", 1), ("delete", 1), ("put", 3), ("use", 1), ("read", 1)])
def test_whatever_happens_to_the_file_features_are_right_or_there_is_one_error(acts):
    with tempfile.TemporaryDirectory() as folder:
        store = StoredRows(os.path.join(folder, "features.db"))
        one, places, asked = some_chunk(store, [1]).one, np.array([], dtype=int), []
        for act, number in acts:
            try:
                if act == "put":
                    chunk = some_chunk(StoredRows(store.path), [number, number + 10])
                    store.put([chunk])
                elif act == "find":
                    asked = [number, number + 1, 51]
                    places, _ = store.find(one, digests(*asked), 2)
                elif act == "read":
                    for rows, positions, values in store.read(places, [1]):
                        expected = 100 * np.array(asked)[rows] + 1
                        assert values[1][positions][:, 0].tolist() == expected.tolist()
                elif act == "use":
                    store = StoredRows(store.path)
                elif act == "clear":
                    FeatureStore(store.path).clear()
                else:
                    FeatureStore(store.path)
                    {"delete": delete, "replace": replace}[act](store)
            except FileNotFoundError as error:
                assert IN_USE in str(error)
        _database.open_file(store.path).close()


def test_numbers_of_spaces_mean_the_same_after_clearing(store):
    mine = some_chunk(store, [1])
    FeatureStore(store.path).clear()
    other = store.space({"kind": "features", "backbone": "another"})
    assert other != mine.one.space
    store.put([mine])
    assert FeatureStore(store.path).describe()["backbone"].tolist() == ["b"]
    assert (store.find(mine.one._replace(space=other), digests(1), 2)[0] < 0).all()


def test_a_store_whose_spaces_were_counted_is_read_and_filled(store):
    store.put([some_chunk(store, [1])])
    with store.file.transaction() as connection:
        connection.execute("UPDATE space SET id = 1")
        connection.execute("UPDATE chunk SET space = 1")
        connection.execute("UPDATE setting SET value = 1 WHERE name = 'removals'")
    again = StoredRows(store.path)
    chunk = some_chunk(again, [2])
    again.put([chunk])
    assert read_back(again, chunk, [1, 2], block=0)[:, 0].tolist() == [100, 200]
    assert FeatureStore(store.path).describe()["rows"].tolist() == [2]


WRITER = """
import sys
from sklearn_difffeat.store._rows import StoredRows
sys.path.insert(0, sys.argv[2])
from helpers.stores import some_chunk
store = StoredRows(sys.argv[1])
store.put([some_chunk(store, [5, 6])])
print("written", flush=True)
sys.stdin.read()
"""


def test_letting_go_of_a_deleted_file_leaves_the_new_one_whole(store):
    store.put([some_chunk(store, [1])])
    delete(store)
    command = [sys.executable, "-c", WRITER, store.path, str(Path(__file__).parents[1])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as writer:
        assert writer.stdout.readline().strip() == "written"
        log = os.path.getsize(store.path + "-wal")
        assert log
        store = StoredRows(store.path)
        chunk = some_chunk(store, [5, 6])
        assert read_back(store, chunk, [5, 6], block=0)[:, 0].tolist() == [500, 600]
        assert os.path.getsize(store.path + "-wal") == log
        writer.communicate()
    assert writer.returncode == 0
    assert FeatureStore(store.path).describe()["rows"].item() == 2


@pytest.mark.parametrize("size", [0, 1000, 70_000])
def test_a_store_that_is_cut_while_in_use_is_an_error_or_right(store, size):
    chunk = some_chunk(store, list(range(1, 300)), width=500)
    store.put([chunk])
    with store.file.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.file.close()
    store.find(chunk.one, chunk.digests, 2)
    os.truncate(store.path, size)
    try:
        places, _ = store.find(chunk.one, chunk.digests, 2)
        for rows, positions, values in store.read(places, [1]):
            np.testing.assert_array_equal(values[1][positions], chunk.values[1][rows])
    except (OSError, ValueError) as error:
        assert "cache=" in str(error)


def at_the_second_pass(monkeypatch, harm):
    """Do harm once, from another thread's view in the middle of a transform."""
    calls = []
    for kind in (DiTBackbone, MaskedLMBackbone):

        def run(self, *args, _run=kind.run):
            calls.append(self)
            if len(calls) == 2:
                harm()
            return _run(self, *args)

        monkeypatch.setattr(kind, "run", run)


@BOTH
def test_a_store_deleted_in_the_middle_of_a_transform_is_one_clear_error(
    kind, column, cells, cache, monkeypatch
):
    X = list(cells(column, 6))
    expected = kind().fit_transform(X)
    transformer = kind(cache=cache, batch_size=2).fit(X)
    at_the_second_pass(monkeypatch, lambda: delete(StoredRows(cache)))
    with pytest.raises(FileNotFoundError, match=IN_USE):
        transformer.transform(X)
    found = transformer.transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert FeatureStore(cache).describe()["rows"].max() == 6


@BOTH
@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_store_cleared_in_the_middle_of_a_transform_gives_right_features(
    kind, column, where, cells, cache, monkeypatch
):
    X = list(cells(column, 6))
    expected = kind().fit_transform(X)
    transformer = kind(cache=cache, batch_size=2).fit(X)
    transformer.transform(X[:2])
    store = FeatureStore(None if cache is True else cache)
    at_the_second_pass(monkeypatch, store.clear)
    for _ in range(2):
        found = transformer.transform(X)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_threads_whose_store_is_deleted_get_right_features_or_one_clear_error(
    cells, cache
):
    X = list(cells("text", 40))
    expected = TextDiffusionFeatureTransformer().fit_transform(X)
    transformer = TextDiffusionFeatureTransformer(cache=cache, batch_size=1).fit(X)
    wrong, done = [], threading.Event()

    def work():
        for _ in range(6):
            try:
                found = transformer.transform(X)
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
            except FileNotFoundError as error:
                if "cache=" not in str(error):
                    wrong.append(error)
            except BaseException as error:
                wrong.append(error)
        done.set()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not done.wait(0.05):
        for end in ("", "-wal", "-shm"):
            try:
                os.unlink(cache + end)
            except FileNotFoundError:
                pass
    for thread in threads:
        thread.join(60)
    assert not wrong
    found = transformer.transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
