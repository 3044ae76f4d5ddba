"""Reader of PASCAL VOC 2007, as multi-label classification."""

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
    first_folder,
    frame_of,
    paths_of,
)

WHERE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
COUNTS = {"train": 2_501, "val": 2_510, "trainval": 5_011, "test": 4_952}
# The lists' entry for a class: present, only in objects marked difficult, absent.
PRESENT, DIFFICULT, ABSENT = 1, 0, -1
VALUE_OF_DIFFICULT = {"unknown": np.nan, "negative": 0, "positive": 1}
DESCRIPTION = """PASCAL VOC 2007, {subset}: photographs, without texts.

{n_images:,} images ({published:,} are published), 20 labels
({labels_per_image:.1f} an image): the classes of the objects in it. Classes seen
only in objects marked difficult ({n_difficult:,} entries) count as {difficult}.

Source: {where} (Everingham et al., IJCV 2010). Read from {root}.
"""


@validate_params(
    {
        "root": [str, os.PathLike],
        "subset": [StrOptions(set(COUNTS))],
        "difficult": [StrOptions(set(VALUE_OF_DIFFICULT))],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_voc2007(
    root: str | os.PathLike[str],
    subset: str = "trainval",
    *,
    difficult: str = "unknown",
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, np.ndarray]:
    """Read PASCAL VOC 2007 from a folder; nothing is downloaded.

    =================   ======================================================
    Labels              20
    Images              2,501 train, 2,510 val, 5,011 trainval, 4,952 test
    Features            an image
    =================   ======================================================

    Parameters
    ----------
    root : str or path
        Folder with ``ImageSets/Main/{class}_{subset}.txt`` and ``JPEGImages/``, or
        one that holds it as ``VOC2007/`` or ``VOCdevkit/VOC2007/``.
    subset : {"train", "val", "trainval", "test"}, default="trainval"
    difficult : {"unknown", "negative", "positive"}, default="unknown"
        What an entry of ``target`` is where a class is seen only in objects that are
        marked difficult. "unknown" makes it NaN, as VOC's own evaluation leaves these
        out; ML-GCN's code trains with them as positive.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with the column ``image`` (path, or None where the file is
        not there).
        ``target`` : ndarray of shape (n_images, 20), indicator matrix, int32; float64
        with NaN for ``difficult="unknown"``.
        ``target_names`` : list of str.
        ``groups`` : object ndarray of shape (n_images,), the images' names.
        ``feature_names`` : list of str. ``filename`` : str, the folder of the lists.
        ``DESCR`` : str.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    FileNotFoundError
        When a file or folder is missing, naming it and where it is published.
    ValueError
        When a list is damaged or lists other images than the others.

    Warns
    -----
    UserWarning
        Once, with the number of images that are listed but not there; and when the
        lists are not as long as the published ones. With less than half of them there
        is no warning: it is an excerpt, as ``DESCR`` says.

    References
    ----------
    .. [1] Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV
       88, 2010; counts from the database statistics of VOC 2007 at its site.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_voc2007
    >>> load_voc2007("/nowhere")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    root = Path(root)
    kept_in = ["ImageSets", "VOC2007/ImageSets", "VOCdevkit/VOC2007/ImageSets"]
    lists = first_folder(root, kept_in, "the lists of VOC 2007", WHERE) / "Main"
    names: list[str] = []
    columns = []
    for number, name in enumerate(CLASSES):
        path = existing(lists / f"{name}_{subset}.txt", "the list of a class", WHERE)
        images, values = _read_list(path)
        if number and images != names:
            raise ValueError(
                f"{path} lists other images than that of {CLASSES[0]}, so they are of "
                f"different releases; get all from {WHERE}."
            )
        names = images
        columns.append(values)
    check_count(len(names), COUNTS[subset], "images", path)
    marks = np.column_stack(columns)
    target = (marks == PRESENT).astype(np.int32)
    if difficult == "unknown":
        target = target.astype(np.float64)
    target[marks == DIFFICULT] = VALUE_OF_DIFFICULT[difficult]
    pictures = lists.parents[1] / "JPEGImages"
    existing(pictures, "the images of VOC 2007", WHERE)
    data = frame_of(image=paths_of([f"{n}.jpg" for n in names], [pictures], WHERE))
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=list(CLASSES),
        groups=np.array(names, dtype=object),
        feature_names=["image"],
        filename=str(lists),
        DESCR=DESCRIPTION.format(
            subset=subset,
            n_images=len(names),
            published=COUNTS[subset],
            labels_per_image=np.nansum(target) / max(1, len(names)),
            n_difficult=int((marks == DIFFICULT).sum()),
            difficult=difficult,
            where=WHERE,
            root=root,
        ),
    )


def _read_list(path: Path) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    values: list[int] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        cells = line.split()
        if len(cells) != 2 or cells[1] not in ("1", "0", "-1"):
            raise ValueError(
                f"{path}, line {number}, is {line[:40]!r} where a list of VOC 2007 has "
                f"an image's name and 1, 0 or -1; get the file from {WHERE}."
            )
        names.append(cells[0])
        values.append(int(cells[1]))
    return names, np.array(values, dtype=np.int32)
