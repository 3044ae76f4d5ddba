"""The protocols from end to end, on small folders with generated pictures."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_folders import write_cifar100, write_coco, write_vg500
from PIL import Image
from torch.nn import functional

from sklearn_difffeat import FeatureStore
from sklearn_difffeat.datasets import _cifar, _coco, _visual_genome, load_openclipart

FOLDER = Path(__file__).parents[2] / "examples" / "protocols"


@pytest.fixture
def load(monkeypatch):
    """Import a script as if it were run from its folder."""
    monkeypatch.syspath_prepend(FOLDER)
    names = [path.stem for path in FOLDER.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def small(dit_folder, bert_folder, tmp_path):
    """The arguments of a run with small checkpoints."""
    out = str(tmp_path / "out")
    images = ["--backbone", str(dit_folder), "--timesteps", "0", "200"]
    texts = ["--text-backbone", str(bert_folder), "--text-timesteps", "0", "200"]
    return [*images, "--search-rows", "60", "--out", out], texts


@pytest.fixture
def coco(tmp_path, monkeypatch):
    monkeypatch.setattr(_coco, "COUNTS", dict.fromkeys(_coco.COUNTS, (211, 210)))
    root = write_coco(tmp_path / "coco", n_images=211)
    return write_coco(root, "val", n_images=211, first=1000)


def test_coco_runs_from_the_folder_to_the_table(load, coco, small, tmp_path, capsys):
    arguments = ["--root", str(coco), "--rows", "200", *small[0], *small[1]]
    script = load("coco")
    record = script.main(arguments)
    shown = capsys.readouterr().out
    assert record["n_train"] == record["n_test"] == 200
    assert set(record["scores"]) == {"image", "text", "image + text"}
    # Pictures and captions of one color a class tell the first three labels.
    assert record["scores"]["image + text"]["mAP"] > 60
    assert "COCO 2014 with captions" in shown
    assert "| Diff-Feat " in shown and "MS-COCO-enhanced" in shown
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text()) == record
    with Image.open(out / "map.png") as picture:
        assert picture.width > picture.height
    kept = FeatureStore(out / "features.db").describe()["rows"].tolist()
    assert script.main(arguments)["scores"] == record["scores"]
    assert FeatureStore(out / "features.db").describe()["rows"].tolist() == kept


def test_estimate_says_hours_and_gigabytes_and_stops(
    load, coco, small, tmp_path, capsys
):
    arguments = ["--root", str(coco), "--rows", "200", *small[0], *small[1]]
    total = load("coco").main([*arguments, "--estimate"])
    assert total["passes"] > 0 and total["heads"] > 0 and total["bytes"] > 0
    assert "hours of passes" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_estimate_of_the_store_is_close(load, coco, small, tmp_path):
    arguments = ["--root", str(coco), "--rows", "200", *small[0], *small[1]]
    script = load("coco")
    expected = script.main([*arguments, "--estimate"])["bytes"]
    script.main(arguments)
    kept = FeatureStore(tmp_path / "out" / "features.db").describe()["bytes"].sum()
    assert kept == pytest.approx(expected, rel=0.3)


@pytest.mark.filterwarnings("ignore:.*lists")
def test_an_absent_image_does_not_end_a_run(load, coco, small):
    for path in sorted((coco / "train2014").iterdir())[:2]:
        path.unlink()
    arguments = ["--root", str(coco), *small[0], *small[1]]
    with pytest.warns(UserWarning, match="2 of 210 images"):
        record = load("coco").main(arguments)
    assert record["n_train"] == 210


def test_visual_genome_runs_without_texts(load, small, tmp_path, monkeypatch):
    monkeypatch.setattr(_visual_genome, "COUNTS", {"train": 48, "test": 24})
    root = write_vg500(tmp_path / "vg", 48, 24, regions=False)
    record = load("vg500").main(["--root", str(root), *small[0], *small[1]])
    assert set(record["scores"]) == {"image"}


def test_single_labels_are_scored_by_top_1_and_top_5(
    load, small, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(_cifar, "COUNTS", {"train": 60, "test": 60})
    root = write_cifar100(tmp_path / "cifar", n_images=60, n_classes=6)
    record = load("single_label").main(
        ["--data", "cifar100", "--root", str(root), *small[0]]
    )
    scores = record["scores"]["image"]
    assert 0 <= scores["top-1"] <= scores["top-5"] <= 100
    assert "top-5" in capsys.readouterr().out


def test_a_root_without_the_data_set_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load("coco").main(["--root", str(tmp_path)])


def test_baselines_print_a_row_a_method_and_go_on_where_they_stopped(
    load, dit_folder, bert_folder, tmp_path, monkeypatch, capsys
):
    arguments = [
        *("--backbone", str(dit_folder), "--text-backbone", str(bert_folder)),
        *("--map-block", "2", "--rows", "150", "--epochs", "2", "--draws", "2"),
        *("--out", str(tmp_path / "out")),
    ]
    script = load("baselines")
    whole = load_openclipart()
    frequent = np.argsort(-whole.target.sum(axis=0))[:5]
    whole.target = whole.target[:, frequent]
    whole.target_names = [whole.target_names[i] for i in frequent]
    monkeypatch.setattr(script, "load_openclipart", lambda: whole)
    kept = script.main(arguments)
    methods = set(kept["draws"]["0"])
    assert methods == set(kept["draws"]["1"])
    assert {"ML-GCN with texts", "Query2Label", "diffusion, fused"} <= methods
    shown = capsys.readouterr().out
    assert all(f"| {name} " in shown for name in methods)
    assert script.main(arguments) == kept
    assert ", CNN, linear" not in capsys.readouterr().out


def test_baselines_want_an_encoder_or_another_block(load, dit_folder, tmp_path):
    with pytest.raises(SystemExit, match="no encoder's map at block 0"):
        load("baselines").main(
            ["--backbone", str(dit_folder), "--out", str(tmp_path), "--rows", "20"]
        )


def test_the_graph_of_labels_is_that_of_its_paper(load):
    Y = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
    graph = load("baselines").label_graph(Y).numpy()
    # Label 0 is there whenever 1 is, 1 in two of three where 0 is; 2 is alone.
    assert graph[2].tolist() == [0, 0, 1]
    np.testing.assert_allclose(graph[:2, :2], [[0.8, 0.2], [0.2, 0.8]], atol=1e-5)


def test_the_asymmetric_loss_without_gamma_is_cross_entropy(load):
    torch.manual_seed(0)
    logits, Y = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    expected = functional.binary_cross_entropy_with_logits(logits, Y) * 3
    loss = load("baselines").asymmetric_loss
    torch.testing.assert_close(loss(logits, Y), expected)
    assert loss(logits, Y, 2.0) < expected
