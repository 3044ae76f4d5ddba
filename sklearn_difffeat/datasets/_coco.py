"""Reader of Microsoft COCO with its captions, as multi-label classification."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Options, StrOptions, validate_params

from sklearn_difffeat.datasets._files import (
    check_count,
    existing,
    first_folder,
    frame_of,
    indicator,
    one_line,
    paths_of,
    read_json,
    with_texts,
)

WHERE = "https://cocodataset.org/#download"
N_LABELS = 80
# Images listed, and images with at least one annotation. Of all 123,287 images 1,069
# have none, 1,021 of them in train2017 (cocodataset/cocoapi, issue 76).
COUNTS = {
    (2014, "train"): (82_783, 82_081),
    (2014, "val"): (40_504, 40_137),
    (2017, "train"): (118_287, 117_266),
    (2017, "val"): (5_000, 4_952),
}
DESCRIPTION = """COCO {year}, {subset}: photographs of everyday scenes, with captions.

{n_images:,} images{kept} ({published:,} are published), {n_labels} labels
({labels_per_image:.1f} an image): the categories of the objects marked in it, in
the order of the categories' ids. Crowds count as objects. Texts are the captions of the
images ({captions}).

Source: {where} (Lin et al., arXiv 1405.0312). Read from {root}.
"""


@validate_params(
    {
        "root": [str, os.PathLike],
        "subset": [StrOptions({"train", "val"})],
        "year": [Options(int, {2014, 2017})],
        "captions": [StrOptions({"join", "first", "each"}), None],
        "labelled_only": ["boolean"],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_coco(
    root: str | os.PathLike[str],
    subset: str = "train",
    year: int = 2014,
    captions: str | None = "join",
    *,
    labelled_only: bool = True,
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, np.ndarray]:
    """Read COCO from a folder (multi-label classification); nothing is downloaded.

    =======================   ===================================================
    Labels                    80 (2.9 an image)
    Images, 2014              82,783 and 40,504; with a label 82,081 and 40,137
    Images, 2017              118,287 and 5,000; with a label 117,266 and 4,952
    Features                  an image and five captions
    =======================   ===================================================

    Parameters
    ----------
    root : str or path
        Folder with ``annotations/instances_{subset}{year}.json``,
        ``annotations/captions_{subset}{year}.json`` and the images in
        ``{subset}{year}/`` or ``images/{subset}{year}/``.
    subset : {"train", "val"}, default="train"
        Published multi-label results are on "val" of 2014.
    year : {2014, 2017}, default=2014
        The release; both have the same images and labels, split another way.
    captions : {"join", "first", "each"} or None, default="join"
        All captions of an image as one text, the first, or one row per caption; None
        reads no captions and gives no column ``text``.
    labelled_only : bool, default=True
        Leave out images without any label, as the 2014 protocol does for training
        [2]_. Query2Label's and ASL's code keeps them.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with columns ``image`` (path, or None where the file is
        not there) and ``text`` (str, or None where an image has no caption).
        ``target`` : int32 ndarray of shape (n_rows, 80), indicator matrix.
        ``target_names`` : list of str, in the order of the category ids.
        ``groups`` : int ndarray of shape (n_rows,), image ids, so that no fold splits
        the captions of an image.
        ``feature_names`` : list of str. ``filename`` : str, the file of the labels.
        ``DESCR`` : str.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    FileNotFoundError
        When a file or folder is missing, naming it and where it is published.
    ValueError
        When a file is damaged, a caption is no text, or a file is of another release
        than ``year`` says.

    Warns
    -----
    UserWarning
        Once, with the number of images that are listed but not there; with the number
        of annotations of images that a file does not list; and when the file does not
        list as many images as were published. With less than half of them there is no
        warning: it is an excerpt, as ``DESCR`` says.

    References
    ----------
    .. [1] Lin et al., "Microsoft COCO: Common Objects in Context", arXiv:1405.0312.
    .. [2] Chen et al., "Multi-Label Image Recognition with Graph Convolutional
       Networks", arXiv:1904.03582. Of all 123,287 images 1,069 have no annotation
       (the public summary of dataset-ninja/coco-2014), 1,021 of them in train2017
       (cocodataset/cocoapi, issue 76): so the counts of both releases add up.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_coco
    >>> load_coco("/nowhere")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    root = Path(root)
    split = f"{subset}{year}"
    instances, path = _annotations(root, "instances", subset, year)
    names = {c["id"]: c["name"] for c in instances["categories"]}
    ids = sorted(names)
    if len(ids) != N_LABELS:
        raise ValueError(
            f"{path} has {len(ids)} categories where COCO has {N_LABELS}: it is "
            f"another data set or release; get the file from {WHERE}."
        )
    column = {number: place for place, number in enumerate(ids)}
    labels: dict[int, set[int]] = defaultdict(set)
    for one in _listed_only(instances, path):
        if one["category_id"] not in column:
            raise ValueError(
                f"{path} marks category {one['category_id']}, which it does not list; "
                f"get the file from {WHERE}."
            )
        labels[one["image_id"]].add(column[one["category_id"]])
    n_listed, n_labelled = COUNTS[year, subset]
    images = instances["images"]
    check_count(len(images), n_listed, "images", path)
    if labelled_only:
        images = [one for one in images if one["id"] in labels]
        if len(instances["images"]) == n_listed:
            check_count(len(images), n_labelled, "images with a label", path)
    folder = first_folder(
        root, [split, f"images/{split}"], f"the images of {split}", WHERE
    )
    paths = paths_of([one["file_name"] for one in images], [folder], WHERE)
    numbers = np.array([one["id"] for one in images], dtype=np.int64)
    target = indicator([sorted(labels[one]) for one in numbers.tolist()], N_LABELS)
    rows = np.arange(len(images))
    if captions is None:
        data = frame_of(image=paths)
    else:
        texts = _captions(root, subset, year, {one["id"] for one in images}, path)
        data, rows = with_texts(paths, [texts[n] for n in numbers.tolist()], captions)
    if return_X_y:
        return data, target[rows]
    return Bunch(
        data=data,
        target=target[rows],
        target_names=[names[number] for number in ids],
        groups=numbers[rows],
        feature_names=list(data.columns),
        filename=str(path),
        DESCR=DESCRIPTION.format(
            year=year,
            subset=subset,
            n_images=len(images),
            published=n_labelled if labelled_only else n_listed,
            kept=" with a label" if labelled_only else "",
            n_labels=N_LABELS,
            labels_per_image=target.sum() / max(1, len(target)),
            captions=f'captions="{captions}"' if captions else "not read",
            where=WHERE,
            root=root,
        ),
    )


def _annotations(
    root: Path, kind: str, subset: str, year: int
) -> tuple[dict[str, Any], Path]:
    """Read a file of annotations and check that it is of the release asked for."""
    path = root / "annotations" / f"{kind}_{subset}{year}.json"
    other = 2017 if year == 2014 else 2014
    if not path.exists() and path.with_name(f"{kind}_{subset}{other}.json").exists():
        raise FileNotFoundError(
            f"there is no {path}, but that of {other} is there; pass year={other}, or "
            f"get the file from {WHERE}."
        )
    existing(path, f"the {kind} of COCO {year}", WHERE)
    found = read_json(path, dict, WHERE)
    needed = ["images", "annotations"] + ["categories"] * (kind == "instances")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(
            f"{path} has no {missing[0]!r}, so it is not a file of COCO's {kind}; get "
            f"it from {WHERE}."
        )
    # Names of 2014 contain their subset, "COCO_train2014_000000000009.jpg".
    names = [str(one["file_name"]) for one in found["images"][:1]]
    is_2014 = [name.startswith("COCO_") for name in names]
    fits = [name.startswith(f"COCO_{subset}2014_") for name in names]
    if (year == 2014 and not all(fits)) or (year == 2017 and any(is_2014)):
        raise ValueError(
            f"{path} lists {names[0]!r}, which is not of {subset}{year}: its content "
            f"and its name disagree; get the file from {WHERE}."
        )
    return found, path


def _listed_only(found: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the annotations of images that the file lists; warn of all others."""
    listed = {one["id"] for one in found["images"]}
    kept = [one for one in found["annotations"] if one["image_id"] in listed]
    if n_strays := len(found["annotations"]) - len(kept):
        warnings.warn(
            f"{n_strays:,} of {len(found['annotations']):,} annotations of {path} are "
            "of images that it does not list; they are left out.",
            UserWarning,
            stacklevel=4,
        )
    return kept


def _captions(
    root: Path, subset: str, year: int, images: set[int], labels: Path
) -> dict[int, list[str]]:
    found, path = _annotations(root, "captions", subset, year)
    unknown = images - {one["id"] for one in found["images"]}
    if unknown:
        raise ValueError(
            f"{path} lacks {len(unknown):,} images of {labels} (the first: "
            f"{min(unknown)}): they are of different releases; get both from {WHERE}."
        )
    texts: dict[int, list[str]] = defaultdict(list)
    # By their ids: files that were written anew may have another order.
    for one in sorted(_listed_only(found, path), key=lambda one: one["id"]):
        number = one["image_id"]
        texts[number].append(one_line(one["caption"], number, path, WHERE))
    return texts
