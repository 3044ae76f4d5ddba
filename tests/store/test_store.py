"""The feature store by itself: what it keeps, what it refuses, who may compute."""

import gc
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from helpers.stores import WIDTH, digests, needing, read_back, some_chunk

from sklearn_difffeat import FeatureStore
from sklearn_difffeat.store import _sql
from sklearn_difffeat.store._chunk import Pass
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._database import StoreFile, open_file
from sklearn_difffeat.store._rows import StoredRows
from sklearn_difffeat.store._sql import Tables


@pytest.fixture
def store(tmp_path):
    return StoredRows(tmp_path / "features.db")


def test_rows_come_back_in_any_order_and_unknown_ones_do_not(store):
    chunks = [some_chunk(store, [1, 2, 3]), some_chunk(store, [4, 5])]
    for chunk in chunks:
        store.put([chunk])
    found = read_back(store, chunks[0], [5, 1, 9, 3, 4], block=2)
    assert found[:, 0].tolist()[:2] == [502, 102]
    assert np.isnan(found[2]).all()
    assert found[3:, 0].tolist() == [302, 402]


def test_a_deeper_pass_takes_the_place_of_a_shallow_one(store):
    shallow, deep = some_chunk(store, [1, 2], deepest=1), some_chunk(store, [2, 3])
    store.put([shallow])
    assert np.isnan(read_back(store, shallow, [1, 2], block=2)).all()
    store.put([deep])
    assert read_back(store, deep, [2], block=2)[0, 0] == 202
    assert read_back(store, deep, [1, 2], block=1)[:, 0].tolist() == [101, 201]
    assert np.isnan(read_back(store, deep, [1], block=2)).all()


def test_a_row_that_is_put_twice_is_kept_once(store):
    chunk = some_chunk(store, [1, 2])
    store.put([chunk])
    store.put([some_chunk(store, [2, 3])])
    assert FeatureStore(store.path).describe()["rows"].sum() == 3


def test_cut_inputs_are_remembered(store):
    chunk = some_chunk(store, [1, 2, 3], truncated=[2])
    store.put([chunk])
    _, truncated = store.find(chunk.one, digests(3, 2, 7), 0)
    assert truncated.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("dtype", "scale", "kept"),
    [
        ("float32", 1, np.float32),
        ("bfloat16", 1, np.float16),
        ("bfloat16", 1e6, np.float32),
        ("bfloat16", 1e-6, np.float32),
    ],
)
def test_half_precision_is_kept_where_the_model_has_no_more(store, dtype, scale, kept):
    chunk = some_chunk(store, [1, 2])
    chunk.values = {0: np.random.default_rng(0).normal(size=(2, 4)) * scale}
    chunk.values[0] = chunk.values[0].astype(np.float32)
    small = chunk.compact(dtype)
    assert small.values[0].dtype == kept
    np.testing.assert_allclose(small.values[0], chunk.values[0], rtol=2**-11)


def test_size_description_and_clearing(store):
    public = FeatureStore(store.path)
    empty = public.size
    store.put([some_chunk(store, list(range(1, 2000)), width=200)])
    described = public.describe()
    assert described[["kind", "backbone", "blocks", "rows"]].values.tolist() == [
        ["features", "b", 3, 1999]
    ]
    assert described["bytes"].item() == 1999 * 3 * 200 * 4 < public.size
    public.clear()
    assert public.size == empty
    assert public.describe().empty


def test_a_bounded_store_lets_the_oldest_features_go(store):
    bound = 4_000_000
    public = FeatureStore(store.path, max_size=bound)
    for start in range(1, 5000, 100):
        chunk = some_chunk(store, list(range(start, start + 100)), width=WIDTH * 100)
        store.put([chunk])
        assert public.size <= bound
    assert FeatureStore(store.path).max_size == bound
    known = store.find(chunk.one, digests(1, 4999), 2)[0] >= 0
    assert known.tolist() == [False, True]
    with pytest.raises(ValueError, match="max_size=4000000 is too small for the"):
        store.put([some_chunk(store, [9], width=1_000_000)])
    assert FeatureStore(store.path, max_size=0).max_size is None
    with pytest.raises(ValueError, match="max_size=-1 is negative"):
        FeatureStore(store.path, max_size=-1)


def test_a_store_pickles_as_its_path(store):
    store.put([some_chunk(store, [1])])
    content = pickle.dumps(FeatureStore(store.path))
    assert len(content) < 500
    assert pickle.loads(content).describe()["rows"].item() == 1


def test_a_folder_as_path_is_an_error_that_proposes_a_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder; name a file in it"):
        FeatureStore(tmp_path)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        FeatureStore(tmp_path / "nowhere" / "features.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("something else entirely\n" * 100)
    with pytest.raises(ValueError, match="not a feature store or is damaged"):
        FeatureStore(path)
    assert path.read_text() == "something else entirely\n" * 100


def test_a_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(ValueError, match="is a database of another program"):
        FeatureStore(path)


def test_a_connection_that_nobody_uses_any_more_is_closed(tmp_path):
    closed = []

    class Watched(Tables):
        def close(self):
            closed.append(True)
            super().close()

    connection = sqlite3.connect(tmp_path / "features.db", factory=Watched)
    assert not closed
    del connection
    gc.collect()
    assert len(closed) == 1


def test_a_store_of_another_version_is_refused(store):
    store.file.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    path = store.path + ".copy"
    with open(store.path, "rb") as old, open(path, "wb") as new:
        new.write(old.read())
    with pytest.raises(ValueError, match="written in version 99 of the store"):
        FeatureStore(path)


def test_changed_bytes_in_the_file_are_never_taken_for_features(store, tmp_path):
    chunk = some_chunk(store, list(range(1, 300)), width=500)
    store.put([chunk])
    store.file.close()
    content = (tmp_path / "features.db").read_bytes()
    some = chunk.values[1].tobytes()[-64:]
    assert some in content
    path = tmp_path / "damaged.db"
    path.write_bytes(content.replace(some, some[::-1]))
    with pytest.raises(ValueError, match=r"is damaged \(chunk 1, block"):
        for _ in StoredRows(path).read(*whole(StoredRows(path), chunk)):
            pass


def whole(store, chunk):
    return store.find(chunk.one, chunk.digests, 2)[0], [0, 1, 2]


def test_a_cut_file_is_an_error_or_gives_what_was_written(store, tmp_path):
    chunk = some_chunk(store, list(range(1, 300)), width=500)
    store.put([chunk])
    store.file.close()
    content = (tmp_path / "features.db").read_bytes()
    for share in (0.1, 0.5, 0.9):
        path = tmp_path / f"cut-{share}.db"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match="damaged"):
            for _ in StoredRows(path).read(*whole(StoredRows(path), chunk)):
                pass


def test_a_full_disk_is_an_error_that_keeps_what_was_there(store):
    first = some_chunk(store, list(range(1, 100)))
    store.put([first])
    with store.file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    large = some_chunk(store, list(range(200, 3000)), width=100)
    with pytest.raises(OSError, match="make room and call again"):
        store.put([large])
    assert read_back(store, first, [99], block=1)[0, 0] == 9901
    assert (store.find(large.one, large.digests, 0)[0] < 0).all()
    with store.file.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    store.put([large])
    assert store.find(large.one, large.digests, 2)[0].min() >= 0


def test_what_was_rolled_back_is_not_remembered(store, monkeypatch):
    first, second = some_chunk(store, [1, 2]), some_chunk(store, [3])
    insert = Tables.insert

    def failing(tables, chunk):
        if chunk.digests == second.digests:
            raise OSError("no more")
        insert(tables, chunk)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no more"):
        patch.setattr(Tables, "insert", failing)
        store.put([first, second])
    assert (store.find(first.one, first.digests, 0)[0] < 0).all()
    store.put([some_chunk(store, [7, 8])])
    assert np.isnan(read_back(store, first, [1, 2], block=2)).all()


def test_a_file_that_cannot_be_written_is_an_error(store):
    with store.file.reading() as connection:
        connection.execute("PRAGMA query_only = 1")
    with pytest.raises(PermissionError, match="exists and is writable"):
        store.put([some_chunk(store, [1])])


def test_a_file_deleted_under_a_running_process_is_made_anew(store, tmp_path):
    store.put([some_chunk(store, [1])])
    public = FeatureStore(store.path)
    for path in tmp_path.glob("features.db*"):
        path.unlink()
    assert public.describe().empty
    store = StoredRows(store.path)
    store.put([some_chunk(store, [2])])
    assert (tmp_path / "features.db").exists()
    assert FeatureStore(store.path).describe()["rows"].item() == 1


def test_two_workers_are_never_granted_the_same_row(store):
    one = some_chunk(store, [1]).one
    with Claims(store, [one], None, 2) as mine, Claims(store, [one], None, 2) as other:
        assert mine.take(digests(1, 2), needing(2))[0].all()
        assert other.take(digests(2, 3), needing(2))[0].tolist() == [False, True]
    with Claims(store, [one], None, 2) as third:
        assert third.take(digests(1, 2, 3), needing(3))[0].all()


def test_rows_that_are_known_by_now_are_told_not_granted(store):
    chunk = some_chunk(store, [1])
    store.put([chunk])
    with Claims(store, [chunk.one], None, 2) as claims:
        granted, known, _ = claims.take(digests(1, 2), needing(2))
    assert granted.tolist() == [False, True]
    assert known.tolist() == [True, False]


def test_a_row_whose_latents_another_worker_encodes_is_not_granted(store):
    one, latents = some_chunk(store, [1]).one, Pass("latents", -1, 0)
    later = Pass(one.space, 5, 0)
    with (
        Claims(store, [one], latents, 2) as mine,
        Claims(store, [later], latents, 2) as other,
    ):
        mine.take(digests(1), needing(1))
        assert other.take(digests(1, 2), needing(2))[0].tolist() == [False, True]


def test_a_worker_that_died_gives_its_rows_back(store):
    one = some_chunk(store, [1]).one
    code = (
        "import os, numpy as np\n"
        "from sklearn_difffeat.store._rows import StoredRows\n"
        "from sklearn_difffeat.store._claims import Claims\n"
        "from sklearn_difffeat.store._chunk import Pass\n"
        f"store = StoredRows({store.path!r})\n"
        f"claims = Claims(store, [Pass{tuple(one)}], None, 2)\n"
        "granted, _, _ = claims.take([bytes(15) + b'\\1'], np.ones((1, 1), bool))\n"
        "print(granted.all(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert process.stdout.strip() == "True", process.stderr
    with open_file(store.path).reading() as connection:
        assert connection.execute("SELECT count(*) FROM claim").fetchone() == (1,)
    with Claims(store, [one], None, 2) as claims:
        assert claims.take(digests(1), needing(1))[0].all()


@pytest.mark.parametrize("started", ["", " 1.5"], ids=["unknown", "earlier"])
def test_a_dead_worker_whose_number_another_process_has_gives_its_rows_back(
    store, started
):
    one = some_chunk(store, [1]).one
    claims = Claims(store, [one], None, 2)
    claims.take(digests(1), needing(1))
    with store.file.transaction() as connection:
        connection.execute(
            "UPDATE worker SET process = ?", (f"{os.getpid()}{started}",)
        )
    with Claims(store, [one], None, 2) as other:
        assert other.take(digests(1), needing(1))[0].all()


def test_a_worker_is_alive_whatever_the_machine_is_called(store):
    one = some_chunk(store, [1]).one
    claims = Claims(store, [one], None, 2)
    claims.take(digests(1), needing(1))
    with store.file.transaction() as connection:
        connection.execute("UPDATE worker SET host = 'elsewhere', seen = seen - 601")
    with Claims(store, [one], None, 2) as other:
        assert not other.take(digests(1), needing(1))[0].any()


def test_a_worker_that_ended_but_was_not_waited_for_gives_its_rows_back(store):
    one = some_chunk(store, [1]).one
    claims = Claims(store, [one], None, 2)
    claims.take(digests(1), needing(1))
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        process = psutil.Process(ended.pid)
        name = f"{ended.pid} {process.create_time()}"
        with store.file.transaction() as connection:
            connection.execute("UPDATE worker SET process = ?", (name,))
        ended.stdout.read()
        end = time.monotonic() + 60
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.01)
        with Claims(store, [one], None, 2) as other:
            assert other.take(digests(1), needing(1))[0].all()


def test_a_store_shows_what_its_user_needs_and_no_more(store):
    public = {name for name in dir(FeatureStore(store.path)) if name[0] != "_"}
    looks_after = {"size", "max_size", "describe", "clear", "close"}
    assert public == looks_after | {"merge", "to_parquet", "from_parquet"}


def test_all_sql_is_in_one_file():
    folder = Path(_sql.__file__).parent
    for path in folder.glob("*.py"):
        words = re.findall(
            r"\b(SELECT|INSERT|DELETE|UPDATE|PRAGMA)\b", path.read_text()
        )
        assert bool(words) == (path.name == "_sql.py"), path.name


def test_a_store_that_is_made_by_another_process_meanwhile_is_known_as_one(
    tmp_path, monkeypatch
):
    path = str(tmp_path / "new.db")
    number, makers = Tables._number, []

    def interrupted(self, query):
        found = number(self, query)
        if not makers:
            makers.append(Thread(target=lambda: StoreFile(path).close()))
            makers[0].start()
            makers[0].join(timeout=1)
        return found

    monkeypatch.setattr(Tables, "_number", interrupted)
    assert StoreFile(path).writable
    makers[0].join()
