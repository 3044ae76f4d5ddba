"""A store that cannot be written: what is in it is used, the rest computed."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers.stores import digests, needing, read_back, some_chunk
from helpers.unprivileged import run_unprivileged, writes_everywhere

from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
from sklearn_difffeat.store import _database, _place
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._rows import StoredRows
from sklearn_difffeat.store._sql import Tables

KNOWN = ["a red apple", "two birds on a branch", "a small house"]
NEW = ["a large boat", "the blue flag"]

READ = """
import json, os, sys, warnings
from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

path, known, new = json.loads(sys.argv[1])
run, rows = MaskedLMBackbone.run, []

def counted(self, inputs, *args):
    rows.append(len(inputs.ids))
    return run(self, inputs, *args)

MaskedLMBackbone.run = counted
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    transformer = TextDiffusionFeatureTransformer(cache=path).fit(known)
    first = transformer.transform(known)
    before = sum(rows)
    mixed = transformer.transform(new + known)
    again = transformer.transform(new + known)
store = FeatureStore(path)
refused = []
for change in (store.clear, lambda: FeatureStore(path, max_size=10**9)):
    try:
        change()
    except PermissionError as error:
        refused.append(str(error))
print(json.dumps({
    "first": first.tolist(), "mixed": mixed.tolist(), "again": again.tolist(),
    "said": [str(one.message) for one in said], "refused": refused,
    "passes": [before, sum(rows)], "max_size": store.max_size,
    "rows": store.describe()["rows"].tolist(),
}))
"""

FILL = """
import json, os, sys
from sklearn_difffeat import TextDiffusionFeatureTransformer
path, texts = json.loads(sys.argv[1])
TextDiffusionFeatureTransformer(cache=path).fit_transform(texts)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def modes_hold(tmp_path):
    if writes_everywhere(tmp_path):
        pytest.skip("this system lets every process of the tests write")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shared #1 100% ü?"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


def fill(path, *, killed=False):
    text = json.dumps([str(path), KNOWN])
    if killed:
        subprocess.run([sys.executable, "-c", FILL, text])
        assert os.path.getsize(f"{path}-wal")
        return
    TextDiffusionFeatureTransformer(cache=path).fit_transform(KNOWN)
    StoredRows(path).file.close()


def lock(folder, *, files=0o444, mode=0o555):
    for path in folder.iterdir():
        path.chmod(files)
    folder.chmod(mode)


@pytest.mark.parametrize(
    ("killed", "files", "mode"),
    [
        (False, 0o444, 0o555),
        (False, 0o644, 0o555),
        (False, 0o444, 0o755),
        (True, 0o444, 0o555),
    ],
    ids=["both", "folder", "file", "left by a killed process"],
)
def test_a_store_that_cannot_be_written_is_read_and_the_rest_is_computed(
    killed, files, mode, folder, modes_hold
):
    path = folder / "features.db"
    fill(path, killed=killed)
    lock(folder, files=files, mode=mode)
    there = sorted(os.listdir(folder))
    content = path.read_bytes()
    found = run_unprivileged(READ, json.dumps([str(path), KNOWN, NEW]))
    assert found["passes"] == [0, 2 * len(NEW)]
    assert len(found["said"]) == 1
    assert "computed but not kept" in found["said"][0]
    assert len(found["refused"]) == 2
    assert all("cannot be written" in text for text in found["refused"])
    assert found["rows"] == [len(KNOWN)]
    assert found["max_size"] is None
    expected = TextDiffusionFeatureTransformer().fit_transform(NEW + KNOWN)
    options = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found["mixed"], expected, **options)
    np.testing.assert_allclose(found["again"], expected, **options)
    np.testing.assert_allclose(found["first"], expected[len(NEW) :], **options)
    assert sorted(os.listdir(folder)) == there
    assert path.read_bytes() == content


def test_a_store_in_use_by_a_process_that_may_write_is_read(folder, modes_hold):
    path = folder / "features.db"
    TextDiffusionFeatureTransformer(cache=path).fit_transform(KNOWN)
    assert os.path.getsize(f"{path}-wal")
    lock(folder)
    found = run_unprivileged(READ, json.dumps([str(path), KNOWN, NEW]))
    assert found["passes"] == [0, 2 * len(NEW)]
    assert found["rows"] == [len(KNOWN)]


OPEN = """
import json, sys
from sklearn_difffeat import FeatureStore
try:
    FeatureStore(sys.argv[1])
    print(json.dumps("opened"))
except PermissionError as error:
    print(json.dumps(str(error)))
"""


def test_no_store_in_a_folder_that_cannot_be_written_is_an_error(folder, modes_hold):
    lock(folder)
    said = run_unprivileged(OPEN, folder / "features.db")
    assert "does not exist and its folder cannot be written" in said
    assert not list(folder.iterdir())


def test_an_empty_file_that_cannot_be_written_is_an_error(folder, modes_hold):
    (folder / "features.db").touch()
    lock(folder)
    said = run_unprivileged(OPEN, folder / "features.db")
    assert "is empty and cannot be written" in said


def test_a_log_without_its_index_is_an_error_where_it_cannot_be_written(
    folder, tmp_path, modes_hold
):
    fill(tmp_path / "features.db", killed=True)
    for end in ("", "-wal"):
        shutil.copy(tmp_path / f"features.db{end}", folder)
    lock(folder)
    said = run_unprivileged(OPEN, folder / "features.db")
    assert "open the store once where it can be written" in said


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """A store with two rows, closed, as a process without rights sees it."""
    path = tmp_path / "features.db"
    store = StoredRows(path)
    store.put([some_chunk(store, [1, 2])])
    store.file.close()
    monkeypatch.setattr(_place, "is_writable", lambda path: False)
    monkeypatch.setattr(_database, "_told", set())
    with pytest.warns(UserWarning, match="computed but not kept"):
        return StoredRows(path)


def test_one_warning_is_given_for_a_store_and_process(unwritable):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FeatureStore(unwritable.path).describe()["rows"].item() == 2


def test_nothing_is_claimed_or_put_into_a_store_that_cannot_be_written(unwritable):
    chunk = some_chunk(unwritable, [2, 3])
    with Claims(unwritable, [chunk.one], None, 2) as claims:
        granted, known, _ = claims.take(digests(1, 2, 3), needing(3))
    assert granted.tolist() == [False, False, True]
    assert known.tolist() == [True, True, False]
    unwritable.put([chunk])
    assert FeatureStore(unwritable.path).describe()["rows"].item() == 2
    found = read_back(unwritable, chunk, [1, 3], block=2)
    assert found[0, 0] == 102
    assert np.isnan(found[1]).all()


def test_settings_unknown_to_a_store_that_cannot_be_written_have_no_rows(unwritable):
    space = unwritable.space({"kind": "features", "backbone": "another"})
    one = some_chunk(unwritable, [1]).one._replace(space=space)
    assert (unwritable.find(one, digests(1, 2), 0)[0] < 0).all()


@pytest.mark.parametrize("stays", [True, False])
def test_what_others_write_is_seen_by_who_cannot(unwritable, stays, monkeypatch):
    chunk = some_chunk(unwritable, [7])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_place, "is_writable", lambda path: True)
        patch.setattr(_database, "_open", {})
        writer = StoredRows(unwritable.path)
        writer.put([chunk])
        file = writer.file
        if not stays:
            file.close()
    assert read_back(unwritable, chunk, [1, 7], block=1)[:, 0].tolist() == [101, 701]
    file.close()


def test_a_write_in_the_middle_of_reading_is_an_error(unwritable):
    file = unwritable.file
    with pytest.raises(OSError, match="was written by another process while it was"):
        with file.reading():
            other = sqlite3.connect(unwritable.path)
            other.execute("UPDATE setting SET value = 5 WHERE name = 'max_size'")
            other.commit()
    other.close()


def test_rights_that_are_given_back_are_used_at_once(unwritable):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_place, "is_writable", lambda path: True)
        unwritable.put([some_chunk(unwritable, [3])])
        assert FeatureStore(unwritable.path).describe()["rows"].sum() == 3


def test_what_only_sqlite_finds_unwritable_is_read(tmp_path, monkeypatch):
    path = tmp_path / "features.db"
    store = StoredRows(path)
    store.put([some_chunk(store, [1, 2])])
    store.file.close()

    def refuse(self, name):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(Tables, "prepare", refuse)
    with pytest.warns(UserWarning, match="computed but not kept"):
        assert FeatureStore(path).describe()["rows"].item() == 2


PRECOMPUTE = """
import json, sys, warnings
from sklearn_difffeat import TextDiffusionFeatureTransformer

path, known, new = json.loads(sys.argv[1])
warnings.simplefilter("ignore")
transformer = TextDiffusionFeatureTransformer(cache=path)
transformer.precompute(known)
refused = []
for n_jobs in (None, 2):
    try:
        transformer.set_params(n_jobs=n_jobs).precompute(new)
    except PermissionError as error:
        refused.append(str(error))
parallel = transformer.fit(new).transform(new)
print(json.dumps({"refused": refused, "parallel": parallel.tolist()}))
"""


def test_precompute_of_what_cannot_be_kept_is_an_error_and_workers_hand_back(
    folder, modes_hold
):
    path = folder / "features.db"
    TextDiffusionFeatureTransformer(cache=path).fit_transform(KNOWN)
    _database.open_file(str(path)).close()
    path.chmod(0o444)
    folder.chmod(0o555)
    found = run_unprivileged(PRECOMPUTE, json.dumps([str(path), KNOWN, NEW]))
    assert len(found["refused"]) == 2
    assert all("features.db" in said for said in found["refused"])
    expected = TextDiffusionFeatureTransformer().fit_transform(NEW)
    np.testing.assert_allclose(found["parallel"], expected, rtol=1e-3, atol=1e-5)
