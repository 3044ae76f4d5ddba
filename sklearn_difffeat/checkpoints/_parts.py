"""The parts of a diffusion pipeline in the hub's layout: configurations and weights."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch

from sklearn_difffeat.checkpoints._source import Source, check_complete
from sklearn_difffeat.checkpoints._weights import find_weights

# Configurations of parts that are not models; tokenizer_2/ has a tokenizer's.
CONFIGS = {
    "": "model_index.json",
    "processor": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}
FLAT = "unet", "scheduler"


def read_part(source: Source, folder: str) -> dict[str, Any]:
    """Return the configuration of a part that a pipeline needs.

    The folder "" is the pipeline itself.

    Raises
    ------
    ValueError
        When the source lacks it.
    """
    name = CONFIGS.get(folder.partition("_")[0], "config.json")
    file = f"{place_of(source, folder)}{name}" if folder else name
    config = source.read_json(file)
    if config is None:
        raise ValueError(
            f"backbone={source.name!r} lacks {file}; download or save all of the "
            "model's sub-folders, as diffusers' save_pretrained lays them out."
        )
    return config


def defaults_of(kind: Any) -> dict[str, Any]:
    """Return what a configuration may leave out, as files of older versions do."""
    parameters = signature(kind.__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def place_of(source: Source, folder: str) -> str:
    """Return where a part is: its folder and a slash, or nothing for the root.

    Pipelines of a U-Net and a scheduler were published without folders.
    """
    is_flat = folder in FLAT and not source.find("unet/config.json")
    return "" if is_flat and source.find("config.json") else f"{folder}/"


def load_part(
    source: Source, kind: Any, folder: str, device: str, dtype: torch.dtype
) -> Any:
    """Load a model of diffusers, in ``.eval()`` mode and without gradients.

    Raises
    ------
    ValueError
        When the files lack tensors that the configuration asks for.
    """
    place = place_of(source, folder)
    model, loading = kind.from_pretrained(
        source.snapshot,
        subfolder=place.rstrip("/") or None,
        variant=find_weights(source, place).variant,
        dtype=dtype,
        low_cpu_mem_usage=False,
        output_loading_info=True,
        local_files_only=True,
    )
    check_complete(source, {*loading["missing_keys"], *loading["mismatched_keys"]})
    for parameter in model.parameters():
        # diffusers does not convert a file whose first tensor, a table of positions in
        # SD3, already has the precision that the model keeps it in.
        parameter.data = parameter.data.to(dtype)
    return settle(model, device)


def settle(model: Any, device: str) -> Any:
    """Move a model that was just loaded to its device, ready to run.

    Weights that stay in main memory are copied. Otherwise they would be the mapped file
    itself, and change when another program writes new weights there.
    """
    model = model.eval().requires_grad_(False).to(device)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model
