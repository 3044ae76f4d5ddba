"""Reader of Visual Genome 500, the 500 most frequent categories of Visual Genome."""

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
    indicator,
    iter_json_list,
    one_line,
    paths_of,
    read_json,
    with_texts,
)

WHERE = "https://github.com/HCPLab-SYSU/SSGRL/tree/master/data/VG"
WHERE_IMAGES = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
LABELS = "vg_category_500_labels_index.json"
REGIONS = "region_descriptions.json"
FOLDERS = ("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2", "images")
N_LABELS = 500
# Counted in the lists of SSGRL's repository; its paper says 98,249 for training.
COUNTS = {"train": 82_904, "test": 10_000}
DESCRIPTION = """Visual Genome 500, {subset}: photographs, with texts of their regions.

{n_images:,} images ({published:,} are published), {n_labels} labels
({labels_per_image:.1f} an image): the most frequent categories of Visual Genome, by the
lists that SSGRL released. The lists hold 82,904 and 10,000 images; the paper of SSGRL
speaks of 98,249 training images. The release numbers the labels and does not name them.
Texts: {texts}.

Source: {where} (Chen et al., arXiv 1908.07325); images and regions: {where_images}
(Krishna et al., arXiv 1602.07332). Read from {root}.
"""


@validate_params(
    {
        "root": [str, os.PathLike],
        "subset": [StrOptions({"train", "test"})],
        "captions": [StrOptions({"join", "first", "each"}), None],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_vg500(
    root: str | os.PathLike[str],
    subset: str = "train",
    captions: str | None = "join",
    *,
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, np.ndarray]:
    """Read Visual Genome 500 from a folder; nothing is downloaded.

    =================   =====================================================
    Labels              500
    Images              82,904 (train) and 10,000 (test)
    Features            an image and, where they are there, its regions' texts
    =================   =====================================================

    Parameters
    ----------
    root : str or path
        Folder with SSGRL's ``train_list_500.txt``, ``test_list_500.txt`` and
        ``vg_category_500_labels_index.json``, the images in ``VG_100K/`` and
        ``VG_100K_2/`` (or in one of them, or under ``images/``), and Visual Genome's
        ``region_descriptions.json`` where texts are wanted.
    subset : {"train", "test"}, default="train"
    captions : {"join", "first", "each"} or None, default="join"
        All descriptions of an image's regions as one text (some 50 of them, which a
        text backbone cuts at its length), the first, or one row per description; None
        gives no column ``text``, and so does a folder without the file.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``data`` : DataFrame with columns ``image`` (path, or None where the file is
        not there) and ``text`` (str, or None where an image has no description).
        ``target`` : int32 ndarray of shape (n_rows, 500), indicator matrix.
        ``target_names`` : list of str, "0" to "499", since the release has no names.
        ``groups`` : int ndarray of shape (n_rows,), image ids.
        ``feature_names`` : list of str. ``filename`` : str, the list.
        ``DESCR`` : str.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    FileNotFoundError
        When a file or folder is missing, naming it and where it is published.
    ValueError
        When a file is damaged, a description is no text, or list and labels are of
        different releases.

    Warns
    -----
    UserWarning
        Once, with the number of images that are listed but not there; and when the
        list is not as long as the published one. With less than half of it there is no
        warning: it is an excerpt, as ``DESCR`` says.

    References
    ----------
    .. [1] Chen et al., "Learning Semantic-Specific Graph Representation for Multi-Label
       Image Recognition", arXiv:1908.07325, and its public code: the numbers of images
       are counted in its lists.

    Examples
    --------
    >>> from sklearn_difffeat.datasets import load_vg500
    >>> load_vg500("/nowhere")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    root = Path(root)
    path = existing(root / f"{subset}_list_500.txt", "the list of images", WHERE)
    names = path.read_text("utf-8").split()
    check_count(len(names), COUNTS[subset], "images", path)
    index_path = existing(root / LABELS, "the labels", WHERE)
    index = read_json(index_path, dict, WHERE)
    rows = [index.get(name) for name in names]
    if None in rows:
        raise ValueError(
            f"{index_path} lacks labels of {rows.count(None):,} images of {path} ("
            f"{names[rows.index(None)]}): they are of different releases; get both "
            f"from {WHERE}."
        )
    for name, labels in zip(names, rows, strict=True):
        if not all(isinstance(one, int) and 0 <= one < N_LABELS for one in labels):
            raise ValueError(
                f"{index_path} has the labels {labels} for {name}, and the release has "
                f"0 to {N_LABELS - 1}: it is of another; get the file from {WHERE}."
            )
    folders = [root / name for name in FOLDERS if (root / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{root} holds no VG_100K/, the images; get them from {WHERE_IMAGES}."
        )
    paths = paths_of(names, folders, WHERE_IMAGES)
    numbers = np.array([int(Path(name).stem) for name in names], dtype=np.int64)
    target = indicator(rows, N_LABELS)
    data, images = frame_of(image=paths), np.arange(len(names))
    said = f"none, for lack of {REGIONS}" if captions else "not read"
    if captions and (root / REGIONS).exists():
        texts = _region_texts(root / REGIONS, numbers)
        data, images = with_texts(paths, texts, captions)
        said = f'the descriptions of its regions (captions="{captions}")'
    if return_X_y:
        return data, target[images]
    return Bunch(
        data=data,
        target=target[images],
        target_names=[str(number) for number in range(N_LABELS)],
        groups=numbers[images],
        feature_names=list(data.columns),
        filename=str(path),
        DESCR=DESCRIPTION.format(
            subset=subset,
            n_images=len(names),
            published=COUNTS[subset],
            n_labels=N_LABELS,
            labels_per_image=target.sum() / max(1, len(target)),
            texts=said,
            where=WHERE,
            where_images=WHERE_IMAGES,
            root=root,
        ),
    )


def _region_texts(path: Path, numbers: np.ndarray) -> list[list[str]]:
    """Return the descriptions of each image's regions.

    The file would take several gigabytes as Python objects, so it is read image by
    image.
    """
    texts: dict[int, list[str]] = {number: [] for number in numbers.tolist()}
    for image in iter_json_list(path, WHERE_IMAGES):
        if not isinstance(image, dict) or "regions" not in image:
            raise ValueError(
                f"{path} holds an image without regions, so it is of another release; "
                f"get the file from {WHERE_IMAGES}."
            )
        # Earlier versions have only "id", and the image's id in each region.
        number = image.get("image_id", image.get("id"))
        if number in texts:
            phrases = [one["phrase"] for one in image["regions"]]
            lines = (one_line(text, number, path, WHERE_IMAGES) for text in phrases)
            texts[number] = list(dict.fromkeys(lines))
    return [texts[number] for number in numbers.tolist()]
