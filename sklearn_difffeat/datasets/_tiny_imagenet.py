"""Reader of Tiny-ImageNet, 200 classes of ImageNet at 64 x 64 pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_difffeat.datasets._files import (
    check_count,
    existing,
    frame_of,
    paths_of,
)

WHERE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
COUNTS = {"train": 100_000, "val": 10_000}
DESCRIPTION = """Tiny-ImageNet, {subset}: photographs of 64 x 64 pixels.

{n_images:,} images ({published:,} are published), one of {n_classes} classes each,
without texts. The labels of the test part were never published; results are on
the validation part.

Source: {where} (Stanford CS231n). Read from {root}.
"""


@validate_params(
    {
        "root": [str, os.PathLike],
        "subset": [StrOptions(set(COUNTS))],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_tiny_imagenet(
    root: str | os.PathLike[str], subset: str = "train", *, return_X_y: bool = False
) -> Bunch | tuple[pd.DataFrame, np.ndarray]:
    """Read Tiny-ImageNet from a folder; nothing is downloaded.

    =================   ==================================
    Classes             200
    Images              100,000 (train) and 10,000 (val)
    Features            an image of 64 x 64 pixels
    =================   ==================================

    Parameters
    ----------
    root : str or path
        Folder with ``wnids.txt``, ``words.txt``, ``train/{wnid}/images/*.JPEG``,
        ``val/val_annotations.txt`` and ``val/images/``, or one that holds it as
        ``tiny-imagenet-200/``.
    subset : {"train", "val"}, default="train"
        The labels of the test part were never published.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with the column ``image`` (path, or None where the file is
        not there).
        ``target`` : int ndarray of shape (n_images,), classes in the order of
        ``wnids.txt``.
        ``target_names`` : list of str, the first name of each class in ``words.txt``.
        ``wnids`` : list of str, WordNet ids of the classes.
        ``groups`` : int ndarray of shape (n_images,), each image its own.
        ``feature_names`` : list of str. ``filename`` : str, the file of the classes.
        ``DESCR`` : str.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    FileNotFoundError
        When a file or folder is missing, naming it and where it is published.
    ValueError
        When the annotations name a class that ``wnids.txt`` does not have.

    Warns
    -----
    UserWarning
        Once, with the number of images that are listed but not there; and when there
        are not as many as were published. With less than half of them there is no
        warning: it is an excerpt, as ``DESCR`` says.

    References
    ----------
    .. [1] http://cs231n.stanford.edu/tiny-imagenet-200.zip: 500 training and 50
       validation images a class.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_tiny_imagenet
    >>> load_tiny_imagenet("/nowhere")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    root = Path(root)
    if not (root / "wnids.txt").exists() and (root / "tiny-imagenet-200").is_dir():
        root = root / "tiny-imagenet-200"
    path = existing(root / "wnids.txt", "the classes", WHERE)
    wnids = path.read_text("utf-8").split()
    words_path = existing(root / "words.txt", "the names of the classes", WHERE)
    lines = words_path.read_text("utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    number_of = {wnid: number for number, wnid in enumerate(wnids)}
    if subset == "train":
        listed, cells = path, []
        target: list[int] = []
        for wnid, number in number_of.items():
            folder = root / "train" / wnid / "images"
            existing(folder, "the training images of a class", WHERE)
            own = sorted(str(one) for one in folder.glob("*.JPEG"))
            cells += own
            target += [number] * len(own)
        paths = np.array(cells, dtype=object)
    else:
        listed = existing(root / "val" / "val_annotations.txt", "the labels", WHERE)
        rows = [line.split("\t") for line in listed.read_text("utf-8").splitlines()]
        unknown = [row for row in rows if len(row) < 2 or row[1] not in number_of]
        if unknown:
            raise ValueError(
                f"{listed} has {len(unknown):,} lines without a class of {path} (the "
                f"first: {' '.join(unknown[0])[:40]!r}), so they are of different "
                f"releases; get both from {WHERE}."
            )
        target = [number_of[row[1]] for row in rows]
        folder = existing(root / "val" / "images", "the validation images", WHERE)
        paths = paths_of([row[0] for row in rows], [folder], WHERE)
    check_count(len(paths), COUNTS[subset], "images", listed)
    data, y = frame_of(image=paths), np.array(target, dtype=np.int64)
    if return_X_y:
        return data, y
    return Bunch(
        data=data,
        target=y,
        target_names=[words.get(wnid, wnid).split(",")[0] for wnid in wnids],
        wnids=wnids,
        groups=np.arange(len(y)),
        feature_names=["image"],
        filename=str(path),
        DESCR=DESCRIPTION.format(
            subset=subset,
            n_images=len(y),
            published=COUNTS[subset],
            n_classes=len(wnids),
            where=WHERE,
            root=root,
        ),
    )
