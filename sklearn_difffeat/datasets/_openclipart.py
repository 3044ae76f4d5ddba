"""Loader of the bundled OpenClipart data set."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

ARCHIVE = Path(__file__).parent / "data" / "openclipart.zip"
SHA256 = "16d827b3af034f2b4e38f2fca40103e8667e4a5b74b979235d8c0cdfb39344db"
DESCRIPTION = """OpenClipart: public-domain drawings with titles and keywords.

{n_items} drawings of 96 x 96 pixels on white, each with its author's title and
description as text, and the {n_labels} keywords with 20 or more items as labels
({labels_per_item:.1f} labels an item). Provenance tags and near-identical star shapes
are left out. One author's series of drawings shares titles, keywords and style, so
items are grouped by folder and first word of the file name, and split by group: no
group is in both parts. The split is fixed, a function of the group's name; {n_train}
items are for training, {n_test} for testing. {n_untested} labels have no item in the
test part and {n_untrained} none in the training part: they belong to single groups.

Source: Debian packages openclipart-png and openclipart-svg (0.18). Every drawing was
dedicated to the public domain by its author (Creative Commons Public Domain
Dedication). The package's own pretraining never saw a drawing or text of the test part.
"""


@validate_params(
    {
        "subset": [StrOptions({"all", "train", "test"})],
        "return_X_y_groups": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_openclipart(
    *, subset: str = "all", return_X_y_groups: bool = False
) -> Bunch | tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Load and return the OpenClipart data set (multi-label classification).

    =================   ==============================
    Labels              98 (2.1 an item)
    Items               about 3,500
    Features            an image and a short text
    =================   ==============================

    Parameters
    ----------
    subset : {"all", "train", "test"}, default="all"
        The published split holds 30% of the groups back for testing.
    return_X_y_groups : bool, default=False
        Return ``(X, Y, groups)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with columns ``image`` (bytes of a WebP file of 96 x 96
        pixels) and ``text`` (str).
        ``target`` : int ndarray of shape (n_items, n_labels), indicator matrix; the
        columns are the same for every subset.
        ``target_names`` : list of str, the labels.
        ``groups`` : object ndarray of shape (n_items,), for group splitters.
        ``split`` : object ndarray of shape (n_items,), "train" or "test".
        ``source`` : object ndarray of shape (n_items,), file name in the package.
        ``sha256`` : object ndarray of shape (n_items,), digest of the pixels before
        compression.
        ``feature_names`` : list of str.
        ``filename`` : str, the archive.
        ``DESCR`` : str.
    (X, Y, groups) : tuple if ``return_X_y_groups`` is True

    Raises
    ------
    ValueError
        When the archive is damaged.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_openclipart
    >>> X, Y, groups = load_openclipart(return_X_y_groups=True)
    >>> list(X.columns), Y.shape[1]
    (['image', 'text'], 98)
    """
    content = ARCHIVE.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(
            f"{ARCHIVE} is damaged (its checksum differs); install the package again."
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        table = io.StringIO(archive.read("items.csv").decode("utf-8"))
        rows = list(csv.DictReader(table))
        images = [archive.read(row["image"]) for row in rows]
    frame = pd.DataFrame({"image": images, "text": [row["text"] for row in rows]})
    frame["image"] = frame["image"].astype(object)
    binarizer = MultiLabelBinarizer()
    target = binarizer.fit_transform([row["labels"].split(";") for row in rows])
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows], dtype=object)
        for name in ("group", "split", "source", "sha256")
    }
    train, test = (target[columns["split"] == part] for part in ("train", "test"))
    description = DESCRIPTION.format(
        n_items=f"{len(target):,}",
        n_labels=target.shape[1],
        labels_per_item=target.sum() / len(target),
        n_train=f"{len(train):,}",
        n_test=f"{len(test):,}",
        n_untested=int((~test.any(axis=0)).sum()),
        n_untrained=int((~train.any(axis=0)).sum()),
    )
    if subset != "all":
        chosen = columns["split"] == subset
        frame = frame[chosen].reset_index(drop=True)
        target = target[chosen]
        columns = {name: values[chosen] for name, values in columns.items()}
    groups = columns.pop("group")
    if return_X_y_groups:
        return frame, target, groups
    return Bunch(
        data=frame,
        target=target,
        target_names=binarizer.classes_.tolist(),
        groups=groups,
        feature_names=["image", "text"],
        filename=str(ARCHIVE),
        DESCR=description,
        **columns,
    )
