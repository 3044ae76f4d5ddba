"""The bundled data set and its split."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from sklearn_difffeat.datasets import _openclipart, load_openclipart
from sklearn_difffeat.datasets._clipart import Drawing, is_test_group


def test_shapes_types_and_names_are_as_documented():
    data = load_openclipart()
    assert list(data.data.columns) == ["image", "text"]
    assert data.target.shape == (len(data.data), 98)
    assert set(np.unique(data.target)) == {0, 1}
    assert data.target.any(axis=1).all()
    assert len(data.target_names) == 98
    assert data.data["text"].str.len().min() > 0
    assert 3000 < len(data.data) < 4000
    assert "public domain" in data.DESCR


def test_every_image_is_a_square_of_96_pixels():
    for cell in load_openclipart(subset="test").data["image"]:
        with Image.open(io.BytesIO(cell)) as image:
            assert image.size == (96, 96)


def test_no_group_is_in_both_parts_and_the_parts_make_the_whole():
    train, test = load_openclipart(subset="train"), load_openclipart(subset="test")
    assert not set(train.groups) & set(test.groups)
    assert set(train.split) == {"train"}
    X, Y, groups = load_openclipart(return_X_y_groups=True)
    assert len(X) == len(Y) == len(groups) == len(train.data) + len(test.data)
    assert 0.28 < len(test.data) / len(X) < 0.32


def test_the_split_is_a_function_of_the_groups_name():
    data = load_openclipart()
    expected = ["test" if is_test_group(group) else "train" for group in data.groups]
    assert data.split.tolist() == expected


def test_no_drawing_is_in_both_parts():
    train, test = load_openclipart(subset="train"), load_openclipart(subset="test")
    assert not set(train.sha256) & set(test.sha256)
    pixels = {
        part: {
            hashlib.sha256(Image.open(io.BytesIO(c)).tobytes()).digest() for c in cells
        }
        for part, cells in (
            ("train", train.data["image"]),
            ("test", test.data["image"]),
        )
    }
    assert not pixels["train"] & pixels["test"]


def test_the_archive_is_small_and_a_damaged_one_is_refused(tmp_path, monkeypatch):
    content = _openclipart.ARCHIVE.read_bytes()
    assert len(content) <= 12_000_000
    damaged = tmp_path / "openclipart.zip"
    damaged.write_bytes(content[:-1] + b"x")
    monkeypatch.setattr(_openclipart, "ARCHIVE", damaged)
    with pytest.raises(ValueError, match="is damaged"):
        load_openclipart()


def test_unknown_subset_is_an_error():
    with pytest.raises(ValueError, match="'subset' parameter"):
        load_openclipart(subset="validation")


def test_group_is_the_folder_and_the_first_word_of_the_file_name(tmp_path):
    drawing = Drawing(tmp_path, "food/fruit/apple_red_01.png", "Apple", "", ())
    assert drawing.group == "food/fruit/apple"
    assert Drawing(tmp_path, "a/12.png", "", "", ()).group == "a/12"


def test_text_says_title_and_description_once(tmp_path):
    assert Drawing(tmp_path, "a", "Apple", "apple", ()).text == "Apple"
    assert Drawing(tmp_path, "a", "Apple", "On a tree", ()).text == "Apple. On a tree"
    assert Drawing(tmp_path, "a", "", "On a tree", ()).text == "On a tree"
