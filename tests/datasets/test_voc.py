"""PASCAL VOC 2007, read from folders in its layout."""

import numpy as np
import pytest
from helpers.data_folders import COLORS, save_picture

from sklearn_difffeat.datasets import _voc, load_voc2007

NAMES = ["000005", "000007", "000009", "000012"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Image i has the class i; the first sees the last class only with difficulty."""
    monkeypatch.setattr(_voc, "COUNTS", dict.fromkeys(_voc.COUNTS, 4))
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for number, name in enumerate(_voc.CLASSES):
        marks = [1 if place == number else -1 for place in range(4)]
        if number == 19:
            marks[0] = 0
        lines = [f"{one} {mark:2d}\n" for one, mark in zip(NAMES, marks, strict=True)]
        (lists / f"{name}_trainval.txt").write_text("".join(lines))
    for name in NAMES:
        save_picture(folder / "JPEGImages" / f"{name}.jpg", COLORS["red"])
    return tmp_path


def test_classes_and_images_are_read(root):
    data = load_voc2007(root, difficult="negative")
    assert data.target_names == _voc.CLASSES
    assert data.target[:, :4].tolist() == np.eye(4).tolist()
    assert data.target.dtype.kind == "i"
    assert data.data["image"].iloc[0].endswith("VOC2007/JPEGImages/000005.jpg")
    assert data.groups.tolist() == NAMES
    inside = load_voc2007(root / "VOCdevkit" / "VOC2007", return_X_y=True)[1]
    assert inside.shape == (4, 20)


@pytest.mark.parametrize("difficult, value", [("negative", 0), ("positive", 1)])
def test_difficult_entries_are_what_was_asked(root, difficult, value):
    assert load_voc2007(root, difficult=difficult).target[0, 19] == value


def test_difficult_entries_are_unknown_by_default(root):
    data = load_voc2007(root)
    assert np.isnan(data.target[0, 19])
    assert np.isnan(data.target).sum() == 1
    assert "(1 entries)" in data.DESCR


def test_missing_and_damaged_lists_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"aeroplane_test\.txt.*voc2007"):
        load_voc2007(root, "test")
    lists = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    path = lists / "cow_trainval.txt"
    text = path.read_text()
    path.write_text(text.replace("000007", "000008"))
    with pytest.raises(ValueError, match=r"cow_trainval\.txt lists other images"):
        load_voc2007(root)
    path.write_text(text.replace("000007 -1", "000007"))
    with pytest.raises(ValueError, match=r"cow_trainval\.txt, line 2, is '000007'"):
        load_voc2007(root)
    with pytest.raises(FileNotFoundError, match="no ImageSets/ or VOC2007/ImageSets/"):
        load_voc2007(lists)


def test_absent_images_are_counted(root):
    (root / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000009.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 of 4 images.*000009\.jpg"):
        assert load_voc2007(root).data["image"].iloc[2] is None
