"""Which files hold a model's weights, whether all are there, how large they are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from sklearn_difffeat.checkpoints._fingerprint import SMALL_SUFFIXES
from sklearn_difffeat.checkpoints._hub import download, file_sizes
from sklearn_difffeat.checkpoints._source import DENOISERS, Source

# The names that from_pretrained of transformers and diffusers looks for.
NAMES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
STORED_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
# If a model has only variants, the first of these that it has is taken.
VARIANTS = ("fp32", "fp16", "bf16", "ema")
SHARD = re.compile(r"-\d{5}-of-\d{5}$")
LFS_POINTER = b"version https://git-lfs"


def _stages(source: Source) -> list[list[str]]:
    """Return the folders that are in memory together: text encoders are released."""
    if not any(source.at_hand(f"{part}/config.json") for part in DENOISERS):
        return [[""]]
    index = source.read_json("model_index.json") or {}
    encoders = sorted(part for part in index if part.startswith("text_encoder"))
    return [
        [f"{part}/" for part in stage if source.find(f"{part}/config.json")]
        for stage in ((*DENOISERS, "vae"), encoders)
    ]


class Weights(NamedTuple):
    """The weight files of a part, and their ``variant=`` of ``from_pretrained``."""

    files: list[str]
    variant: str | None = None


def find_weights(source: Source, part: str) -> Weights:
    """Return what loading reads of a part: its folder and a slash, or nothing.

    Plain names come first, which mean full precision; then those with a variant in
    their name, as in ``model.fp16.safetensors``.

    Raises
    ------
    ValueError
        When there are only variants, and several with unknown names.
    """
    for name in NAMES:
        if files := _files(source, part, name):
            return Weights(files)
    for name in NAMES:
        variant = _choose_variant(source, part, name)
        if variant is not None:
            return Weights(_files(source, part, name, f".{variant}"), variant)
    return Weights([part + NAMES[part.startswith((*DENOISERS, "vae"))]])


def _files(source: Source, part: str, name: str, variant: str = "") -> list[str]:
    """Return the one file of that name, or the shards that its index names."""
    stem, _, suffix = name.rpartition(".")
    whole = f"{part}{stem}{variant}.{suffix}"
    if source.size_of(whole) is not None:
        return [whole]
    index = source.read_json(f"{part}{name}.index{variant}.json") or {"weight_map": {}}
    return [part + file for file in {*index["weight_map"].values()}]


def _choose_variant(source: Source, part: str, name: str) -> str | None:
    stem, _, suffix = map(re.escape, name.rpartition("."))
    forms = rf"{stem}\.(.+)\.{suffix}", rf"{re.escape(name)}\.index\.(.+)\.json"
    names = sorted(source.names_in(part.rstrip("/")))
    matches = [re.fullmatch(form, file) for form in forms for file in names]
    found = {match[1] for match in matches if match and not SHARD.search(match[1])}
    known = [variant for variant in VARIANTS if variant in found]
    if not known and len(found) > 1:
        raise ValueError(
            f"backbone={source.name!r} has its {part or 'model'} weights in the "
            f"variants {sorted(found)} alone, of which none is known; rename the files "
            f"of one of them to {name!r}."
        )
    return known[0] if known else min(found, default=None)


def weight_files(source: Source) -> list[str]:
    """Return the files that loading reads, whether or not they are there."""
    parts = [part for stage in _stages(source) for part in stage]
    return sorted(file for part in parts for file in find_weights(source, part).files)


def size_in_mb(source: Source) -> float | None:
    """Return the size of the weight files that loading reads, where it is known."""
    sizes = [source.size_of(file) for file in weight_files(source)]
    return None if None in sizes else sum(filter(None, sizes)) / 1e6


def _is_whole(path: Path | None) -> bool:
    if path is None:
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) != LFS_POINTER


def check_weights(source: Source) -> None:
    """Refuse a model whose weight files are not all here and cannot be downloaded.

    Raises
    ------
    FileNotFoundError
        Naming the first file that is missing.
    ValueError
        When a part is quantised: its weights would have to be converted back first.
    """
    for part in (part for stage in _stages(source) for part in stage):
        config = source.read_json(f"{part}config.json") or {}
        quantised = config.get("quantization_config")
        if quantised:
            method = quantised.get("quant_method", "an unknown method")
            raise ValueError(
                f"backbone={source.name!r} is quantised by {method} "
                f"({part}config.json), which is not supported; use the model that it "
                "was made from, with dtype='bfloat16' where memory is short."
            )
    if source.on_hub and not source.local_files_only:
        return
    files = weight_files(source)
    missing = [file for file in files if not _is_whole(source.at_hand(file))]
    if missing:
        raise FileNotFoundError(
            f"backbone={source.name!r} is only half downloaded: {len(missing)} of its "
            f"{len(files)} weight files are missing, such as {missing[0]!r}; download "
            "it again, with network access."
        )


def fetch(source: Source) -> None:
    """Download the weights that are not in the cache, with progress bars.

    ``from_pretrained`` of a hub id would ask the hub for each missing file, and retry
    without network. With a :attr:`Source.snapshot` it does not ask.
    """
    fetch_small(source)
    for file in weight_files(source):
        _fetch_file(source, file)


def fetch_small(source: Source) -> None:
    """Download configurations, vocabularies and code that are not in the cache."""
    if not source.on_hub or source.local_files_only:
        return
    sizes = file_sizes(source.location, source.revision, ask=True) or {}
    depth = 1 if "model_index.json" in sizes else 0
    for file in sizes:
        if file.count("/") <= depth and Path(file).suffix in SMALL_SUFFIXES:
            _fetch_file(source, file)


def _fetch_file(source: Source, file: str) -> None:
    if source.at_hand(file) is None:
        download(source.location, file, source.revision)


def loaded_bytes(source: Source, bytes_per_number: int) -> int | None:
    """Return what the weights take in memory at a precision; None if unknown.

    Exact if the files are here; otherwise estimated from their sizes and the
    configuration, which may not name the precision that they are stored in.
    """
    counts = [
        [
            _count(source, part, file)
            for part in stage
            for file in find_weights(source, part).files
        ]
        for stage in _stages(source)
    ]
    if any(count is None for stage in counts for count in stage):
        return None
    return bytes_per_number * max(sum(filter(None, stage)) for stage in counts)


def _count(source: Source, part: str, file: str) -> int | None:
    counted = _count_numbers(source.at_hand(file))
    size = source.size_of(file)
    if counted is not None or size is None:
        return counted
    config = source.read_json(f"{part}config.json") or {}
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    return size // STORED_BYTES.get(stored, 4)


def _count_numbers(path: Path | None) -> int | None:
    """Count the numbers in a safetensors file by its header alone."""
    if path is None or path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "np") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]
            return sum(map(math.prod, shapes))
    except SafetensorError:
        return None
