"""Calls of the store that are interrupted or left unfinished, and names of files."""

import os
import threading

import pytest
from helpers.stores import digests, some_chunk

from sklearn_difffeat import FeatureStore
from sklearn_difffeat.store._database import StoreFile
from sklearn_difffeat.store._rows import StoredRows
from sklearn_difffeat.store._sql import Tables


@pytest.fixture
def store(tmp_path):
    return StoredRows(tmp_path / "features.db")


@pytest.mark.parametrize(
    ("owner", "moment"),
    [(Tables, "insert"), (Tables, "setting"), (StoreFile, "index")],
)
def test_ctrl_c_while_features_are_put_keeps_all_or_nothing(
    store, owner, moment, monkeypatch
):
    first, second = some_chunk(store, [1, 2]), some_chunk(store, [3])
    original = getattr(owner, moment)

    def interrupted(*args):
        original(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, moment, interrupted)
        store.put([first, second])
    assert FeatureStore(store.path).describe().empty
    done = threading.Thread(target=lambda: store.put([first, second]))
    done.start()
    done.join(60)
    assert FeatureStore(store.path).describe()["rows"].item() == 3


def test_a_transaction_that_ctrl_c_left_open_does_not_block_the_next(store):
    store.file.connection.execute("BEGIN IMMEDIATE")
    store.put([some_chunk(store, [1])])
    assert FeatureStore(store.path).describe()["rows"].item() == 1


def test_reading_that_is_not_finished_holds_up_nobody(store):
    chunks = [some_chunk(store, [1, 2]), some_chunk(store, [3])]
    for chunk in chunks:
        store.put([chunk])
    reading = store.read(store.find(chunks[0].one, digests(1, 3), 2)[0], [0])
    next(reading)
    writer = threading.Thread(target=FeatureStore(store.path).clear)
    writer.start()
    writer.join(60)
    assert not writer.is_alive()
    assert not list(reading)


def test_a_link_that_leads_nowhere_yet_makes_the_file_it_names(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "features.db")
    store = StoredRows(tmp_path / "link.db")
    store.put([some_chunk(store, [1])])
    assert FeatureStore(tmp_path / "features.db").describe()["rows"].item() == 1
    (tmp_path / "lost.db").symlink_to(tmp_path / "nowhere" / "features.db")
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        FeatureStore(tmp_path / "lost.db")


@pytest.mark.parametrize(
    "name", ["a?mode=ro.db", "50%20#x.db", "größe 猫.db", ":memory:"]
)
def test_a_file_may_have_any_name(tmp_path, name):
    store = StoredRows(tmp_path / name)
    store.put([some_chunk(store, [1])])
    assert sorted(os.listdir(tmp_path)) == sorted([name, name + "-shm", name + "-wal"])
    store.file.close()
    assert os.listdir(tmp_path) == [name]
