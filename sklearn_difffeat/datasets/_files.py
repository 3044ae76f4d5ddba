"""What the readers of data sets share: finding files, and errors for missing ones."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Number of characters read at a time from a large file.
PART = 1 << 24


def existing(path: Path, what: str, where: str) -> Path:
    """Return a path that exists.

    Raises
    ------
    FileNotFoundError
        With the path, what it should contain and where it is published.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}, {what}; get it from {where}.")
    return path


def first_folder(root: Path, names: Sequence[str], what: str, where: str) -> Path:
    """Return the first of some folders of ``root`` that exists ("." is root itself).

    Raises
    ------
    FileNotFoundError
        With ``root`` and the folders looked for.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    known = " or ".join(f"{name}/" for name in names if name != ".")
    raise FileNotFoundError(f"{root} holds no {known}, {what}; get it from {where}.")


def read_json(path: Path, kind: type, where: str) -> Any:
    """Return the content of a JSON file, which has to be a dict or a list.

    Raises
    ------
    ValueError
        When the file is damaged, or contains something else.
    """
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file)
    except ValueError as error:
        raise _damaged(path, error, where) from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} holds a {type(found).__name__} where this data set has a "
            f"{kind.__name__}; get the file from {where}."
        )
    return found


def iter_json_list(path: Path, where: str) -> Iterator[Any]:
    """Yield the objects of a JSON list one by one, without loading the whole file.

    Raises
    ------
    ValueError
        When the file is damaged, or is not a list.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(PART).lstrip()
        if not text.startswith("["):
            raise ValueError(
                f"{path} is not a list, as it is in this data set; get it from {where}."
            )
        at, ended = 1, False
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if text[at : at + 1] == "]":
                return
            try:
                element, at = decoder.raw_decode(text, at)
            except ValueError as error:
                if ended:
                    raise _damaged(path, error, where) from error
                more = file.read(PART)
                text, at, ended = text[at:] + more, 0, not more
                continue
            yield element


def _damaged(path: Path, error: Exception, where: str) -> ValueError:
    return ValueError(f"{path} is incomplete JSON ({error}); get it from {where}.")


def one_line(text: Any, image: int, path: Path, where: str) -> str:
    """Return the text of an image with single blanks and no line ends.

    Raises
    ------
    ValueError
        When it is no text, naming the image.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"{path} has {text!r} where image {image} has a text; get the file from "
            f"{where}."
        )
    return " ".join(text.split())


def paths_of(names: Sequence[str], folders: Sequence[Path], where: str) -> np.ndarray:
    """Return the paths of images by their names; None for missing images.

    Warns
    -----
    UserWarning
        Once, with the number of images that are listed but missing.
    """
    there: dict[str, str] = {}
    for folder in reversed(folders):
        with os.scandir(folder) as entries:
            there |= {entry.name: entry.path for entry in entries}
    paths = np.array([there.get(name) for name in names], dtype=object)
    n_absent = int(sum(path is None for path in paths))
    if n_absent:
        first = next(n for n, path in zip(names, paths, strict=True) if path is None)
        warnings.warn(
            f"{n_absent:,} of {len(names):,} images that are listed are not in "
            f"{' or '.join(map(str, folders))} (the first: {first}) and became "
            f"missing cells; get them from {where}, or use missing='nan'.",
            UserWarning,
            stacklevel=4,
        )
    return paths


def check_count(count: int, published: int, what: str, path: Path) -> None:
    """Warn when a list is not as long as the one that was published.

    A list of less than half the length is taken for an excerpt, made on purpose.
    """
    if count != published and 2 * count >= published:
        warnings.warn(
            f"{path} lists {count:,} {what}, and the published one {published:,}: it "
            "was cut, or is of another release.",
            UserWarning,
            stacklevel=4,
        )


def with_texts(
    paths: np.ndarray, texts: Sequence[Sequence[str]], captions: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Put images and their texts into rows.

    Parameters
    ----------
    paths : ndarray of shape (n_images,), object
    texts : sequence of n_images sequences of str
    captions : {"join", "first", "each"}
        One row an image with all its texts or the first, or one row a text.

    Returns
    -------
    data : DataFrame with columns ``image`` and ``text``
        An image without texts has None.
    images : ndarray of shape (n_rows,), int
        The image of each row.
    """
    per_image: list[list[str | None]] = [
        list(own) if captions == "each" else [" ".join(own)] if captions == "join"
        else [own[0]] if own else [None]
        for own in texts
    ]  # fmt: skip
    per_image = [own if any(own) else [None] for own in per_image]
    images = np.repeat(np.arange(len(paths)), [len(own) for own in per_image])
    flat = np.array([text for own in per_image for text in own], dtype=object)
    return frame_of(image=paths[images], text=flat), images


def frame_of(**columns: np.ndarray) -> pd.DataFrame:
    """Return columns of cells unchanged: pandas would turn None into NaN."""
    series = {name: pd.Series(c, dtype=object) for name, c in columns.items()}
    return pd.DataFrame(series)


def indicator(rows: Sequence[Sequence[int]], n_labels: int) -> np.ndarray:
    """Return the indicator matrix of lists of labels, int32."""
    target = np.zeros((len(rows), n_labels), dtype=np.int32)
    lengths = [len(labels) for labels in rows]
    columns = np.fromiter((i for labels in rows for i in labels), int, sum(lengths))
    target[np.repeat(np.arange(len(rows)), lengths), columns] = 1
    return target
