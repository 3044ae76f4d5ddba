"""Reader of CIFAR-100 in its binary version."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_difffeat.datasets._files import check_count, existing, first_folder

WHERE = "https://www.cs.toronto.edu/~kriz/cifar.html (cifar-100-binary.tar.gz)"
SIDE, CHANNELS = 32, 3
RECORD = np.dtype([
    ("coarse", "u1"), ("fine", "u1"), ("pixels", "u1", (CHANNELS, SIDE, SIDE)),
])  # fmt: skip
COUNTS = {"train": 50_000, "test": 10_000}
DESCRIPTION = """CIFAR-100, {subset}: photographs of 32 x 32 pixels.

{n_images:,} images ({published:,} are published), one of {n_classes} {labels} classes
each, without texts.

Source: {where}, Krizhevsky, "Learning multiple layers of features from tiny images",
2009. Read from {root}.
"""


@validate_params(
    {
        "root": [str, os.PathLike],
        "subset": [StrOptions(set(COUNTS))],
        "labels": [StrOptions({"fine", "coarse"})],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_cifar100(
    root: str | os.PathLike[str],
    subset: str = "train",
    *,
    labels: str = "fine",
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, np.ndarray]:
    """Read CIFAR-100's binary version from a folder; nothing is downloaded.

    The Python version is a pickle, which could run any code, and is never opened.

    =================   ==================================
    Classes             100, or 20 coarse ones
    Images              50,000 (train) and 10,000 (test)
    Features            an image of 32 x 32 pixels
    =================   ==================================

    Parameters
    ----------
    root : str or path
        Folder with ``train.bin``, ``test.bin``, ``fine_label_names.txt`` and
        ``coarse_label_names.txt``, or one that holds it as ``cifar-100-binary/``.
    subset : {"train", "test"}, default="train"
    labels : {"fine", "coarse"}, default="fine"
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with the column ``image``, uint8 arrays of shape (32, 32,
        3); the pixels stay in the file until they are read.
        ``target`` : int ndarray of shape (n_images,), classes by number.
        ``target_names`` : list of str.
        ``groups`` : int ndarray of shape (n_images,), each image its own.
        ``feature_names`` : list of str. ``filename`` : str, the file.
        ``DESCR`` : str.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    FileNotFoundError
        When a file is missing, naming it and where it is published.
    ValueError
        When the file is incomplete, or not of CIFAR-100's binary version.

    Warns
    -----
    UserWarning
        When the file does not hold as many images as were published. With less than
        half of them there is no warning: it is an excerpt, as ``DESCR`` says.

    References
    ----------
    .. [1] https://www.cs.toronto.edu/~kriz/cifar.html: a record is a byte of the coarse
       label, a byte of the fine label and 3,072 bytes of pixels.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_cifar100
    >>> load_cifar100("/nowhere")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    root = Path(root)
    if not (root / f"{subset}.bin").exists() and (root / "cifar-100-binary").is_dir():
        root = first_folder(root, ["cifar-100-binary"], "the data set", WHERE)
    path = existing(root / f"{subset}.bin", "the images in the binary version", WHERE)
    names_path = root / f"{labels}_label_names.txt"
    names = existing(names_path, "the classes", WHERE).read_text("utf-8").split()
    size = path.stat().st_size
    if size == 0 or size % RECORD.itemsize:
        raise ValueError(
            f"{path} has {size:,} bytes, no multiple of the {RECORD.itemsize:,} of an "
            "image of CIFAR-100: it is cut or of another data set; get it from "
            f"{WHERE}."
        )
    records = np.memmap(path, dtype=RECORD, mode="r")
    check_count(len(records), COUNTS[subset], "images", path)
    target = records[labels].astype(np.int64)
    if target.max() >= len(names):
        raise ValueError(
            f"{path} has a class {target.max()} and {names_path} {len(names)} names: "
            f"they are of different data sets; get both from {WHERE}."
        )
    pixels = np.asarray(records["pixels"]).transpose(0, 2, 3, 1)
    cells = np.empty(len(pixels), dtype=object)
    for row, picture in enumerate(pixels):
        cells[row] = picture
    data = pd.DataFrame({"image": pd.Series(cells, dtype=object)})
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=names,
        groups=np.arange(len(target)),
        feature_names=["image"],
        filename=str(path),
        DESCR=DESCRIPTION.format(
            subset=subset,
            n_images=len(target),
            published=COUNTS[subset],
            n_classes=len(names),
            labels=labels,
            where=WHERE,
            root=root,
        ),
    )
