"""Visual Genome 500, read from folders in its layout."""

import json

import numpy as np
import pytest
from helpers.data_folders import write_vg500

from sklearn_difffeat.datasets import _files, _visual_genome, load_vg500


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(_visual_genome, "COUNTS", {"train": 8, "test": 4})
    return write_vg500(tmp_path)


def test_lists_labels_and_both_folders_are_read(root):
    data = load_vg500(root)
    assert data.target.shape == (8, 500)
    assert np.flatnonzero(data.target[1]).tolist() == [1, 499]
    assert data.groups.tolist() == list(range(1000, 1008))
    folders = [path.split("/")[-2] for path in data.data["image"]]
    assert folders == ["VG_100K_2", "VG_100K"] * 4
    assert data.data["text"].iloc[1] == "a green bird on the house"
    assert len(load_vg500(root, "test", return_X_y=True)[1]) == 4


def test_descriptions_are_rows_of_their_own_or_the_first(root):
    each = load_vg500(root, captions="each")
    assert each.data["text"].tolist()[:2] == ["a red bird", "on the house"]
    assert each.groups.tolist()[:3] == [1000, 1000, 1001]
    assert load_vg500(root, captions="first").data["text"].iloc[2] == "a blue bird"
    assert list(load_vg500(root, captions=None).data.columns) == ["image"]


def test_without_descriptions_there_is_no_text(root):
    (root / "region_descriptions.json").unlink()
    data = load_vg500(root)
    assert list(data.data.columns) == ["image"]
    assert "for lack of region_descriptions.json" in data.DESCR


def test_descriptions_are_read_in_parts_of_any_size(root, monkeypatch):
    expected = load_vg500(root).data["text"].tolist()
    for size in (1, 7, 64):
        monkeypatch.setattr(_files, "PART", size)
        assert load_vg500(root).data["text"].tolist() == expected


@pytest.mark.parametrize("end", [-1, -40, 1])
def test_damaged_descriptions_are_named(root, end):
    path = root / "region_descriptions.json"
    path.write_text(path.read_text()[:end])
    with pytest.raises(
        ValueError, match=r"region_descriptions\.json is incomplete JSON"
    ):
        load_vg500(root)


def test_a_description_that_is_no_text_is_named(root):
    path = root / "region_descriptions.json"
    path.write_text(path.read_text().replace('"on the house"', "null", 1))
    with pytest.raises(ValueError, match=r"descriptions\.json has None where image 1"):
        load_vg500(root)


def test_labels_of_another_release_are_refused(root):
    path = root / "vg_category_500_labels_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"1003.jpg": [4, 731]}))
    with pytest.raises(ValueError, match=r"index\.json has the labels \[4, 731\]"):
        load_vg500(root)
    del index["1003.jpg"]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks labels of 1 images .*1003\.jpg"):
        load_vg500(root)


@pytest.mark.parametrize("name", ["train_list_500.txt", _visual_genome.LABELS])
def test_missing_files_are_named(root, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}.*SSGRL"):
        load_vg500(root)


def test_absent_images_and_shorter_lists_are_told(root):
    (root / "VG_100K" / "1001.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 of 8 images.*1001\.jpg"):
        data = load_vg500(root)
    assert data.data["image"].iloc[1] is None
    path = root / "test_list_500.txt"
    path.write_text(path.read_text().rsplit("\n", 1)[0])
    with pytest.warns(UserWarning, match=r"lists 3 images.*published one 4"):
        load_vg500(root, "test")
