"""Threads and processes that share a store, and some that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers.both import BOTH

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@BOTH
@pytest.mark.parametrize("where", ["none", "memory", "file"])
def test_threads_of_joblib_give_the_features_of_one(kind, column, where, cells, cache):
    X = list(cells(column, 50)) + list(cells(column, 3))
    options = {"timestep": [0, 50], "dtype": "float32"}
    expected = kind(**options).fit_transform(X)
    options["cache"] = None if where == "none" else cache
    with joblib.parallel_config(backend="threading"):
        transformer = kind(n_jobs=2, **options)
        found = transformer.fit_transform(X)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(transformer.transform(X), found, rtol=1e-3)


def test_threads_that_need_the_same_rows_share_the_work(cells, cache, pass_counter):
    X = list(cells("image", 40))
    transformer = ImageDiffusionFeatureTransformer(cache=cache, batch_size=4).fit(X)
    both = joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(transformer.transform)(rows) for rows in (X, X[::-1])
    )
    assert pass_counter["rows"] == 40
    np.testing.assert_array_equal(both[0], both[1][::-1])


SEARCH = """
import sys
import joblib
from counting import CountedImageTransformer, counting
from sklearn.model_selection import GridSearchCV
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

X, y = joblib.load("job.joblib")
model = make_pipeline(CountedImageTransformer(cache="features.db"), RidgeClassifier())
grid = {
    "countedimagetransformer__block": [1, 2, 4],
    "countedimagetransformer__timestep": [50, 200],
}
for _ in range(2):
    with counting() as counts:
        search = GridSearchCV(model, grid, cv=2, n_jobs=2, error_score="raise")
        search.fit(X, y)
        print(*counts())
"""


def test_two_processes_of_a_search_pass_each_row_once(cells, tmp_path):
    X = list(cells("image", 20))
    joblib.dump((X, np.arange(20) % 2), tmp_path / "job.joblib")
    found = subprocess.run(
        [sys.executable, "-c", SEARCH],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr
    (first, loads), (second, none) = map(str.split, found.stdout.splitlines())
    assert int(first) == 20 * 2
    # The parent refits from the store.
    assert int(loads) <= 2
    assert second == none == "0"


# Forks two writers for each line read, and says their process numbers.
NURSERY = """
import os, signal, sys
import joblib, torch
torch.set_num_threads(1)
from sklearn_difffeat import TextDiffusionFeatureTransformer
import transformers.models.bert.modeling_bert, sklearn_difffeat.backbones.masked_lm
import sklearn_difffeat.extraction._extract
folder, path, texts, log = joblib.load(sys.argv[1])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def write():
    transformer = TextDiffusionFeatureTransformer(
        folder, cache=path, batch_size=4, timestep=[0, 300]
    )
    with open(log, "ab", buffering=0) as file:
        for start in range(0, len(texts), 20):
            transformer.precompute(texts[start : start + 20])
            file.write(f"{start}\\n".encode())

for line in sys.stdin:
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            try:
                write()
            finally:
                os._exit(0)
        children.append(child)
    print(*children, flush=True)
"""


def test_killed_writers_lose_nothing_that_was_done_and_leave_nothing_wrong(
    bert_folder, tmp_path, pass_counter
):
    random = np.random.default_rng(0)
    words = "a red green blue small large apple bird boat house flag".split()
    texts = [" ".join(random.choice(words, 8)) for _ in range(6000)]
    path, log = str(tmp_path / "features.db"), tmp_path / "done.txt"
    joblib.dump((bert_folder, path, texts, str(log)), tmp_path / "job.joblib")
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, tmp_path / "job.joblib"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as nursery:
        longest = 60.0
        for _ in range(25):
            nursery.stdin.write("go\n")
            writers = [int(number) for number in nursery.stdout.readline().split()]
            assert len(writers) == 2
            start = time.monotonic()
            stop = start + random.uniform(0.1, 1) * longest
            while time.monotonic() < stop:
                time.sleep(0.01)
                if longest == 60 and log.exists() and log.stat().st_size:
                    # So long a writer takes on this machine to get anything done.
                    longest = 1.5 * (time.monotonic() - start)
                    break
            for writer in random.permutation(writers):
                os.kill(writer, signal.SIGKILL)  # fails if it has finished
        nursery.stdin.close()
    reported = sorted({int(line) for line in log.read_text().split()})
    done = sorted({t for start in reported for t in texts[start : start + 20]})
    assert 0 < len(done) < len(texts)

    options = {"timestep": [0, 300], "batch_size": 64}
    cached = TextDiffusionFeatureTransformer(bert_folder, cache=path, **options)
    found = cached.fit_transform(done)
    assert pass_counter["rows"] == 0
    plain = TextDiffusionFeatureTransformer(bert_folder, **options)
    np.testing.assert_allclose(found, plain.fit_transform(done), rtol=1e-3, atol=1e-5)
    found = cached.transform(texts)
    np.testing.assert_allclose(found, plain.transform(texts), rtol=1e-3, atol=1e-5)
