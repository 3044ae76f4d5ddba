"""Real engines on this machine: the same features, each pass once, deaths survived.

Run with the extra ``cluster`` installed; else they are skipped.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
import pytest

from sklearn_difffeat import FeatureStore, ImageDiffusionFeatureTransformer

ROOT = Path(__file__).parents[2]
ENGINES = ROOT / "tests" / "helpers" / "engines"
RECIPES = ROOT / "examples" / "cluster"
# Of starting an engine and stopping it, the models included.
SECONDS = 300


def needs(engine):
    """Skip where an engine is not installed."""
    pytest.importorskip({"spark": "pyspark"}.get(engine, engine))
    if engine == "dask":
        pytest.importorskip("distributed")
    if engine == "spark" and not shutil.which("java"):
        pytest.skip("Spark needs Java")


@pytest.fixture
def run(cells, tmp_path):
    """Return a function that runs a script in a folder with 24 pictures."""
    X = list(cells("image", 24))
    joblib.dump(X, tmp_path / "cells.joblib")
    modules = [ENGINES, ROOT / "examples" / "benchmarks", *sys.path]

    def run(script, *arguments):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, modules)),
            "DIFFFEAT_COUNTS": str(tmp_path / "counts.txt"),
            "RAY_AUTH_MODE": "disabled",
        }
        output, errors = tmp_path / "output.txt", tmp_path / "errors.txt"
        # Files, not pipes: an engine's own processes may outlive the script, and would
        # keep a pipe open past the time limit.
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", script, *arguments],
                cwd=tmp_path,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            try:
                code = process.wait(SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert code == 0, errors.read_text("utf-8")[-4000:]
        return output.read_text("utf-8")

    run.cells, run.folder = X, tmp_path
    return run


@pytest.mark.parametrize("engine", ["dask", "ray", "spark"])
def test_partitions_fill_stores_whoever_dies(engine, run):
    needs(engine)
    run(ENGINES / f"run_{engine}.py")
    deaths = run.folder / "stores" / "deaths"
    assert sorted(path.name for path in deaths.iterdir()) == ["after", "before"]
    lines = (run.folder / "counts.txt").read_text().splitlines()
    passed = [int(line.split()[1]) for line in lines if line.startswith("forwards")]
    assert sum(passed) == 24 * 2

    stores = sorted((run.folder / "stores").glob("*.db"))
    assert len(stores) == 6
    store = FeatureStore(run.folder / "all.db").merge(*stores)
    kept = store.describe().query("kind == 'features'")
    assert kept["rows"].tolist() == [24, 24]
    transformer = ImageDiffusionFeatureTransformer(timestep=[0, 200])
    expected = transformer.fit_transform(run.cells)
    found = transformer.set_params(cache=store).transform(run.cells)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ["dask", "ray", "spark"])
def test_the_recipe_runs_from_pictures_to_a_choice(engine, run):
    needs(engine)
    options = ("--rows", "24", "--partitions", "4")
    printed = run(RECIPES / f"{engine}_features.py", *options)
    assert "4 stores" in printed
    assert "best: {'features__image__block': " in printed


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_backend_of_joblib_carries_jobs_and_searches(engine, run):
    needs(engine)
    printed = run(ENGINES / "run_joblib.py", engine).splitlines()
    passes = {tuple(line.split()[:2]): int(line.split()[2]) for line in printed[-4:]}
    assert passes["GridSearchCV", "search.db"] == 24 * 2
    assert passes["LocalSearchCV", "search.db"] == 0


def test_a_worker_without_the_package_is_told_of(run):
    needs("dask")
    assert "DaskDistributedBackend cannot import" in run(ENGINES / "run_lacking.py")
