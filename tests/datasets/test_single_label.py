"""CIFAR-100 and Tiny-ImageNet, read from folders in their layouts."""

import numpy as np
import pytest
from helpers.data_folders import write_cifar100, write_tiny_imagenet

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.datasets import (
    _cifar,
    _tiny_imagenet,
    load_cifar100,
    load_tiny_imagenet,
)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    monkeypatch.setattr(_cifar, "COUNTS", {"train": 6, "test": 6})
    return write_cifar100(tmp_path)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(_tiny_imagenet, "COUNTS", {"train": 12, "val": 6})
    return write_tiny_imagenet(tmp_path / "tiny-imagenet-200")


def test_cifar_records_are_two_labels_and_pixels_by_channel(cifar):
    data = load_cifar100(cifar)
    record = (cifar / "cifar-100-binary" / "train.bin").read_bytes()[3074 * 2 :]
    picture = data.data["image"].iloc[2]
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert picture[0, 1].tolist() == [record[3], record[1027], record[2051]]
    assert data.target.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.target_names[5] == "fine_5" and len(data.target_names) == 100
    assert load_cifar100(cifar, labels="coarse").target_names[-1] == "coarse_19"
    assert len(load_cifar100(cifar / "cifar-100-binary", "test").data) == 6


def test_cifar_pixels_stay_in_the_file(cifar):
    picture = load_cifar100(cifar).data["image"].iloc[0]
    assert not picture.flags.owndata and not picture.flags.writeable
    cells = load_cifar100(cifar, return_X_y=True)[0]["image"]
    assert ImageDiffusionFeatureTransformer().fit_transform(cells).shape[0] == 6


def test_cifar_files_that_do_not_fit_are_named(cifar):
    path = cifar / "cifar-100-binary" / "train.bin"
    content = path.read_bytes()
    path.write_bytes(content[: 4 * 3074])
    with pytest.warns(UserWarning, match=r"train\.bin lists 4 images.*published one 6"):
        load_cifar100(cifar)
    path.write_bytes(content[:-7])
    with pytest.raises(ValueError, match=r"train\.bin has 18,437 bytes, no multiple"):
        load_cifar100(cifar)
    path.write_bytes(b"\0\xff" + content[2:])
    with pytest.raises(ValueError, match=r"class 255 and .* 100 names"):
        load_cifar100(cifar)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.bin.*cifar-100-binary\.tar"):
        load_cifar100(cifar)


def test_tiny_imagenet_is_read_in_the_order_of_its_classes(tiny):
    for root in (tiny, tiny.parent):
        data = load_tiny_imagenet(root)
        assert data.target.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.wnids == ["n00000002", "n00000001", "n00000000"]
    assert data.target_names == ["thing 2", "thing 1", "thing 0"]
    assert data.data["image"].iloc[0].endswith("n00000002_0.JPEG")
    val = load_tiny_imagenet(tiny, "val")
    assert val.target.tolist() == [0, 0, 1, 1, 2, 2]


def test_tiny_imagenet_files_that_do_not_fit_are_named(tiny):
    (tiny / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.warns(UserWarning, match=r"1 of 6 images.*val_1\.JPEG"):
        load_tiny_imagenet(tiny, "val")
    path = tiny / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n00000001", "n77777777"))
    with pytest.raises(ValueError, match=r"val_annotations\.txt has 2 lines without"):
        load_tiny_imagenet(tiny, "val")
    (tiny / "train" / "n00000000" / "images" / "n00000000_0.JPEG").unlink()
    with pytest.warns(UserWarning, match=r"lists 11 images.*published one 12"):
        load_tiny_imagenet(tiny)
    (tiny / "words.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"words\.txt.*tiny-imagenet-200\.zip"):
        load_tiny_imagenet(tiny)
