"""Stores that were filled apart and come together."""

import os
import signal
import sqlite3
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers.both import BOTH
from helpers.unprivileged import run_unprivileged, writes_everywhere

from sklearn_difffeat import (
    FeatureStore,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.store import _merge


def filled(path, kind, cells, **parameters):
    kind(cache=path, **parameters).precompute(list(cells), timesteps=[0, 100])
    return FeatureStore(path)


def as_rows(store):
    table = store.describe()
    table["settings"] = table["settings"].map(str)
    return table.drop(columns="bytes").values.tolist()


@BOTH
def test_after_a_merge_nothing_is_computed_again(
    kind, column, cells, tmp_path, pass_counter
):
    X = list(cells(column, 12))
    expected = kind(cache=True, timestep=[0, 100]).fit_transform(X)
    filled(tmp_path / "a.db", kind, X[:5])
    filled(tmp_path / "b.db", kind, X[3:9])
    filled(tmp_path / "c.db", kind, X[9:])
    store = FeatureStore(tmp_path / "all.db")
    assert store.merge(*(tmp_path / f"{name}.db" for name in "abc")) is store
    passed = pass_counter["rows"]
    found = kind(cache=store, timestep=[0, 100]).fit_transform(X)
    assert pass_counter["rows"] == passed
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    kept = store.describe().query("kind == 'features'")
    assert kept["rows"].tolist() == [12, 12]
    for name in "abc":
        (tmp_path / f"{name}.db").unlink()
    np.testing.assert_array_equal(kind(cache=store, timestep=[0, 100]).fit_transform(X),
                                  found)  # fmt: skip


def test_a_second_merge_brings_nothing(cells, tmp_path):
    X = cells("text", 6)
    filled(tmp_path / "a.db", TextDiffusionFeatureTransformer, X)
    store = FeatureStore(tmp_path / "all.db").merge(tmp_path / "a.db")
    before = as_rows(store), store.size
    store.merge(tmp_path / "a.db", FeatureStore(tmp_path / "a.db"))
    assert (as_rows(store), store.size) == before


def test_the_deeper_of_two_passes_is_kept_whichever_comes_first(cells, tmp_path):
    X = list(cells("text", 6))
    deep, shallow = tmp_path / "deep.db", tmp_path / "shallow.db"
    TextDiffusionFeatureTransformer(cache=deep).precompute(X)
    TextDiffusionFeatureTransformer(cache=shallow).precompute(X, blocks=[2])
    TextDiffusionFeatureTransformer(cache=shallow).precompute(X[:2])
    for order in ([deep, shallow], [shallow, deep]):
        store = FeatureStore(tmp_path / f"{order[0].stem}-first.db").merge(*order)
        depths = store.describe().set_index("blocks")["rows"].to_dict()
        assert depths[7] == 6
    first_deep = FeatureStore(tmp_path / "deep-first.db").describe()
    assert first_deep["blocks"].tolist() == [7]


def test_memory_may_be_either_side(cells, tmp_path):
    X = list(cells("text", 4))
    memory = FeatureStore()
    memory.clear()
    TextDiffusionFeatureTransformer(cache=True).precompute(X)
    store = FeatureStore(tmp_path / "a.db").merge(memory)
    assert store.describe()["rows"].tolist() == [4]
    memory.clear()
    memory.merge(store)
    assert memory.describe()["rows"].tolist() == [4]
    memory.clear()


def test_backbones_and_settings_stay_apart(cells, tmp_path):
    text = filled(tmp_path / "t.db", TextDiffusionFeatureTransformer, cells("text", 3))
    image = filled(
        tmp_path / "i.db", ImageDiffusionFeatureTransformer, cells("image", 3)
    )
    other = filled(
        tmp_path / "o.db",
        TextDiffusionFeatureTransformer,
        cells("text", 3),
        pooling="max",
    )
    store = FeatureStore(tmp_path / "all.db").merge(text, image, other)
    assert sorted(as_rows(store), key=str) == sorted(
        as_rows(text) + as_rows(image) + as_rows(other), key=str
    )


def test_a_bound_holds_in_a_merge(cells, tmp_path):
    X = cells("text", 40)
    source = filled(tmp_path / "a.db", TextDiffusionFeatureTransformer, X, batch_size=4)
    bound = source.size * 3 // 4
    store = FeatureStore(tmp_path / "all.db", max_size=bound).merge(source)
    assert 0 < store.size <= bound
    assert 0 < store.describe()["rows"].sum() < 80


def test_what_cannot_be_merged_is_said_in_a_sentence(cells, tmp_path):
    store = filled(tmp_path / "a.db", TextDiffusionFeatureTransformer, cells("text", 2))
    with pytest.raises(ValueError, match="cannot be merged into itself"):
        store.merge(tmp_path / "a.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    with pytest.raises(ValueError, match="cannot be merged into itself"):
        store.merge(tmp_path / "link.db")
    with pytest.raises(FileNotFoundError, match="there is no store"):
        store.merge(tmp_path / "lost.db")
    assert not (tmp_path / "lost.db").exists()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        store.merge(tmp_path)
    (tmp_path / "words.db").write_text("these are only words " * 100)
    with pytest.raises(ValueError, match="is not a feature store or is damaged"):
        store.merge(tmp_path / "words.db")
    later = tmp_path / "later.db"
    FeatureStore(later).close()
    with sqlite3.connect(later) as tables:
        tables.execute("PRAGMA user_version = 7")
    tables.close()
    with pytest.raises(ValueError, match="was written in version 7 of the store"):
        store.merge(later)
    assert store.describe()["rows"].tolist() == [2, 2]


def test_damaged_features_are_not_taken_over(cells, tmp_path):
    source = filled(
        tmp_path / "a.db", TextDiffusionFeatureTransformer, cells("text", 3)
    )
    with sqlite3.connect(source) as tables:
        tables.execute(
            "UPDATE pooled SET content = zeroblob(length(content)) WHERE block = 4"
        )
    tables.close()
    store = FeatureStore(tmp_path / "all.db")
    with pytest.raises(ValueError, match=r"is damaged \(chunk 1, block 4\)"):
        store.merge(source)
    assert store.describe().empty


READ_ONLY = """
import json, sys, warnings
from sklearn_difffeat import FeatureStore
locked, target = sys.argv[1:]
with warnings.catch_warnings():
    warnings.simplefilter("error")
    store = FeatureStore(target).merge(locked)
warnings.simplefilter("ignore")
try:
    FeatureStore(locked).merge(target)
except PermissionError as error:
    print(json.dumps([store.describe()["rows"].tolist(), str(error)]))
"""


def test_a_store_that_is_only_read_can_be_merged_but_not_filled(cells, tmp_path):
    if writes_everywhere(tmp_path):
        pytest.skip("modes of files do not hold here")
    locked = tmp_path / "locked"
    locked.mkdir()
    X = cells("text", 3)
    filled(locked / "a.db", TextDiffusionFeatureTransformer, X).close()
    (locked / "a.db").chmod(0o444)
    locked.chmod(0o555)
    rows, said = run_unprivileged(READ_ONLY, locked / "a.db", tmp_path / "all.db")
    locked.chmod(0o755)
    assert rows == [3, 3]
    assert "cannot be written" in said


def test_a_closed_store_is_one_file_and_opens_again(cells, tmp_path):
    X = cells("text", 3)
    store = filled(tmp_path / "a.db", TextDiffusionFeatureTransformer, X)
    assert (tmp_path / "a.db-wal").exists()
    store.close()
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    assert FeatureStore(tmp_path / "b.db").describe()["rows"].tolist() == [3, 3]
    assert store.describe().empty
    FeatureStore().close()


def test_sources_do_not_stay_open(cells, tmp_path):
    from sklearn_difffeat.store._database import is_open

    source = filled(
        tmp_path / "a.db", TextDiffusionFeatureTransformer, cells("text", 2)
    )
    source.close()
    FeatureStore(tmp_path / "all.db").merge(tmp_path / "a.db")
    assert not is_open(os.fspath(tmp_path / "a.db"))


FILLING = """
import sys
from sklearn_difffeat import TextDiffusionFeatureTransformer
from sklearn_difffeat.extraction import _model
run = _model.Model.compute
def slow(self, batch, prepared):
    run(self, batch, prepared)
    print("kept", flush=True)
    if len(sys.argv) > 1:
        import time; time.sleep(60)
_model.Model.compute = slow
texts = [f"text {i}" for i in range(8)]
TextDiffusionFeatureTransformer(cache="part.db", batch_size=2).precompute(texts)
"""


def start(tmp_path, code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_store_that_is_being_filled_gives_what_is_finished(tmp_path):
    store = FeatureStore(tmp_path / "all.db")
    with start(tmp_path, FILLING, "slowly") as process:
        process.stdout.readline()
        message = r"is being filled: \d+ passes of rows"
        with pytest.warns(UserWarning, match=message) as said:
            store.merge(tmp_path / "part.db")
        assert said[0].filename == __file__
        process.kill()
    assert store.describe()["rows"].tolist() == [2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The dead are not waited for.
        store.merge(tmp_path / "part.db")
    with start(tmp_path, FILLING) as process:
        process.communicate()
    assert store.merge(tmp_path / "part.db").describe()["rows"].tolist() == [8]


MERGING = """
import sys, time
from sklearn_difffeat import FeatureStore
from sklearn_difffeat.store import _merge
_merge.BATCH_BYTES = 1
put = _merge._put
def slow(*arguments):
    put(*arguments)
    print("merged", flush=True)
    time.sleep(0.2)
_merge._put = slow
FeatureStore("all.db").merge("a.db")
"""


def test_a_merge_that_was_killed_goes_on(cells, tmp_path, monkeypatch):
    X = cells("text", 40)
    filled(tmp_path / "a.db", TextDiffusionFeatureTransformer, X, batch_size=4)
    with start(tmp_path, MERGING) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    store = FeatureStore(tmp_path / "all.db")
    n_before = store.describe()["rows"].sum()
    assert 0 < n_before < 80
    brought = []
    put = _merge._put
    monkeypatch.setattr(
        _merge,
        "_put",
        lambda target, held, on_done: (
            brought.append(sum(len(chunk.digests) for chunk in held)),
            put(target, held, on_done),
        ),
    )
    store.merge(tmp_path / "a.db")
    assert sum(brought) == 80 - n_before
    assert store.describe()["rows"].tolist() == [40, 40]


def test_a_progress_bar_counts_all_rows(cells, tmp_path, capsys):
    source = filled(
        tmp_path / "a.db", TextDiffusionFeatureTransformer, cells("text", 9)
    )
    FeatureStore(tmp_path / "all.db").merge(source, verbose=True)
    assert "18/18" in capsys.readouterr().err
    FeatureStore(tmp_path / "all.db").merge(source, verbose=True)
    assert "18/18" in capsys.readouterr().err


def test_two_processes_may_merge_into_one_store_at_a_time(cells, tmp_path):
    X = list(cells("text", 20))
    for name, some in (("a", X[:15]), ("b", X[5:])):
        filled(tmp_path / f"{name}.db", TextDiffusionFeatureTransformer, some)
    code = "import sys; from sklearn_difffeat import FeatureStore; "
    code += "FeatureStore('all.db').merge(sys.argv[1])"
    both = [start(tmp_path, code, f"{name}.db") for name in "ab"]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    store = FeatureStore(tmp_path / "all.db")
    assert store.describe()["rows"].tolist() == [20, 20]
