"""COCO, read from folders in its layout."""

import json
import shutil
import warnings

import numpy as np
import pytest
from helpers.data_folders import CATEGORY_IDS, write_coco

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.datasets import _coco, load_coco


@pytest.fixture
def counts(monkeypatch):
    """Take the small folders for whole."""
    small = dict.fromkeys(_coco.COUNTS, (12, 11))
    monkeypatch.setattr(_coco, "COUNTS", small)


@pytest.fixture
def root(tmp_path, counts):
    return write_coco(tmp_path)


def edit(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_labels_come_in_the_order_of_category_ids_and_crowds_count(root):
    data = load_coco(root)
    assert data.target_names == [f"thing {number}" for number in CATEGORY_IDS]
    assert data.target.shape == (11, 80)
    assert set(np.unique(data.target)) == {0, 1}
    assert np.flatnonzero(data.target[0]).tolist() == [0, 40, 79]
    assert np.flatnonzero(data.target[1]).tolist() == [1]
    assert data.groups.tolist() == list(range(100, 111))
    assert "11 images with a label" in data.DESCR
    assert data.filename.endswith("instances_train2014.json")


def test_images_without_annotation_are_kept_on_request(root):
    data, target = load_coco(root, labelled_only=False, return_X_y=True)
    assert len(data) == len(target) == 12
    assert not target[-1].any()


@pytest.mark.parametrize(
    "captions, first, n_rows",
    [
        ("join", " ".join(f"a red bird {n} 100" for n in range(5)), 11),
        ("first", "a red bird 0 100", 11),
        ("each", "a red bird 0 100", 55),
    ],
)
def test_captions_are_joined_or_chosen_or_rows_of_their_own(
    root, captions, first, n_rows
):
    data = load_coco(root, captions=captions)
    assert list(data.data.columns) == ["image", "text"]
    assert data.data["text"].iloc[0] == first
    assert len(data.data) == len(data.target) == len(data.groups) == n_rows
    assert len(set(data.groups)) == 11
    assert set(data.data["image"][data.groups == 101]) == {data.data["image"].iloc[
        int(np.flatnonzero(data.groups == 101)[0])
    ]}  # fmt: skip


def test_captions_need_not_be_there_when_they_are_not_asked_for(root):
    (root / "annotations" / "captions_train2014.json").unlink()
    assert list(load_coco(root, captions=None).data.columns) == ["image"]
    with pytest.raises(FileNotFoundError, match=r"captions_train2014\.json.*coco"):
        load_coco(root)


def test_an_image_without_caption_has_a_missing_text(root):
    path = root / "annotations" / "captions_train2014.json"

    def change(found):
        kept = [one for one in found["annotations"] if one["image_id"] != 101]
        found["annotations"] = kept

    edit(path, change)
    for captions in ("join", "first", "each"):
        data = load_coco(root, captions=captions)
        assert data.data["text"][data.groups == 101].tolist() == [None]


@pytest.mark.parametrize("caption", [None, 3, ["a bird"]])
def test_a_caption_that_is_no_text_is_named(root, caption):
    path = root / "annotations" / "captions_train2014.json"
    edit(path, lambda found: found["annotations"][-7].update(caption=caption))
    with pytest.raises(ValueError, match=r"captions_train2014\.json has .* image 101"):
        load_coco(root)


@pytest.mark.parametrize("kind", ["instances", "captions"])
@pytest.mark.parametrize("number", [99, "101"])
def test_annotations_of_images_that_are_not_listed_are_told(root, kind, number):
    expected = load_coco(root)
    more = {"id": 999, "image_id": number, "category_id": 1, "caption": "a stray"}
    path = root / "annotations" / f"{kind}_train2014.json"
    edit(path, lambda found: found["annotations"].append(more))
    with pytest.warns(UserWarning, match=rf"^1 of .* annotations of .*{kind}"):
        data = load_coco(root)
    assert data.data.equals(expected.data)
    assert (data.target == expected.target).all()


@pytest.mark.parametrize("under", ["", "images"])
def test_the_release_of_2017_is_read_in_both_places(tmp_path, counts, under):
    data = load_coco(write_coco(tmp_path, "val", 2017, under=under), "val", 2017)
    assert data.data["image"].iloc[0].endswith("val2017/000000000100.jpg")


def test_images_listed_but_absent_become_missing_cells_with_one_warning(root):
    (root / "train2014" / "COCO_train2014_000000000103.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 of 11 images .*103\.jpg.*coco") as found:
        data = load_coco(root)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert data.data["image"].isna().tolist().index(True) == 3
    transformer = ImageDiffusionFeatureTransformer(missing="nan")
    assert np.isnan(transformer.fit_transform(data.data["image"])[3]).all()


def test_a_list_that_is_nearly_whole_is_told(root, monkeypatch):
    monkeypatch.setitem(_coco.COUNTS, (2014, "train"), (14, 13))
    with pytest.warns(UserWarning, match=r"lists 12 images.* published one 14"):
        load_coco(root)


def test_an_excerpt_is_told_in_the_description_alone(tmp_path):
    assert "(82,081 are published)" in load_coco(write_coco(tmp_path)).DESCR


def test_a_category_that_is_not_listed_is_named(root):
    path = root / "annotations" / "instances_train2014.json"
    edit(path, lambda found: found["annotations"][3].update(category_id=5))
    with pytest.raises(
        ValueError, match=r"instances_train2014\.json marks category 5,"
    ):
        load_coco(root)


def test_a_whole_file_with_other_labels_is_told(root, monkeypatch):
    path = root / "annotations" / "instances_train2014.json"
    edit(path, lambda found: found["annotations"].pop())
    monkeypatch.setitem(_coco.COUNTS, (2014, "train"), (12, 10))
    with pytest.warns(UserWarning, match=r"lists 11 images with a label.*one 10"):
        load_coco(root)


def test_counts_of_both_releases_add_up():
    sums = np.array(list(_coco.COUNTS.values())).reshape(2, 2, 2).sum(axis=1)
    assert sums.tolist() == [[123_287, 122_218]] * 2


def test_a_root_without_annotations_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json.*coco"):
        load_coco(tmp_path)


def test_year_and_files_that_disagree_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"instances_train2017.*year=2014"):
        load_coco(root, year=2017)
    annotations = root / "annotations"
    for kind in ("instances", "captions"):
        shutil.copy(
            annotations / f"{kind}_train2014.json",
            annotations / f"{kind}_train2017.json",
        )
    with pytest.raises(ValueError, match=r"train2017\.json lists .*disagree"):
        load_coco(root, year=2017)


def test_a_subset_under_the_name_of_the_other_is_refused(root):
    path = root / "annotations" / "instances_train2014.json"
    shutil.copy(path, path.with_name("instances_val2014.json"))
    with pytest.raises(ValueError, match=r"val2014\.json lists .* not of val2014"):
        load_coco(root, "val")


def test_captions_of_another_release_are_refused(root):
    path = root / "annotations" / "captions_train2014.json"
    edit(path, lambda found: found.update(images=found["images"][2:]))
    with pytest.raises(ValueError, match=r"captions.* lacks 2 images .*\(the first: 1"):
        load_coco(root)


def test_labels_of_another_data_set_are_refused(root):
    path = root / "annotations" / "instances_train2014.json"
    edit(path, lambda found: found["categories"].pop())
    with pytest.raises(ValueError, match=r"instances.*79 categories where COCO has 80"):
        load_coco(root)


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"images": [{"id"', "is incomplete JSON"),
        ("[]", "holds a list where"),
        ('{"images": []}', "has no 'annotations'"),
    ],
)
def test_broken_json_is_named(root, text, said):
    path = root / "annotations" / "instances_train2014.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"instances_train2014\.json {said}") as found:
        load_coco(root)
    assert "cocodataset.org" in str(found.value)


def test_a_folder_without_images_is_named(root):
    shutil.rmtree(root / "train2014")
    with pytest.raises(FileNotFoundError, match="no train2014/ or images/train2014/"):
        load_coco(root)


def test_no_pixel_is_read(root):
    (root / "train2014" / "COCO_train2014_000000000103.jpg").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_coco(str(root)).data) == 11
