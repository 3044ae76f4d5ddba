"""DiT (Peebles and Xie, arXiv 2212.09748), run with the null class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from sklearn_difffeat.backbones._diffusion import DiffusionBackbone
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._latents import LatentCodec
from sklearn_difffeat.backbones._noising import Noising
from sklearn_difffeat.checkpoints._source import Source

# A hub id, or a folder of the hub's cache.
META_RELEASE = re.compile(r"(^|[/\\]|--)facebook([/\\]|--)DiT-XL-2-(256|512)($|[/\\])")
# Of the class that diffusers had for all Transformers when it converted the release
# (its scripts/convert_dit_to_diffusers.py); later classes keep this entry when they
# save such a model again.
LEGACY_CLASS, LEGACY_ENTRY = "Transformer2DModel", "num_vector_embeds"
# Meta's code (github.com/facebookresearch/DiT, models.py): the i-th of n frequencies is
# 10000 ** (-i / n), as TimestepEmbedder has it, and this is the epsilon of norm2.
FREQUENCY_SHIFT, EPSILON = 0, 1e-6


class DiTBackbone(DiffusionBackbone):
    """A class-conditional DiT of latents or pixels.

    diffusers' class differs from Meta's code in two constants: the frequencies of the
    time embedding, and the epsilon of the norm before the feed-forward layer. Models
    that were trained with the class keep its own, those converted from Meta's release
    are run with Meta's.
    """

    model_class = DiTTransformer2DModel
    reads_encoder = True

    def __init__(
        self, info: BackboneInfo, model: Any, codec: LatentCodec, noising: Noising
    ) -> None:
        own_map = codec.own_map()
        if own_map is not None:
            model.pos_embed = _ReadFirst(own_map, model.pos_embed)
        super().__init__(info, model, codec, noising)

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        embed = model.pos_embed
        first = embed.own_map if isinstance(embed, _ReadFirst) else embed
        return [first, *model.transformer_blocks]

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        info = super().describe(source)
        is_metas = _comes_from_meta(source)
        return replace(info, time_embedding="original" if is_metas else "diffusers")

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> DiTBackbone:
        backbone = super().load(source, device, dtype)
        assert isinstance(backbone, DiTBackbone)
        if backbone.info.time_embedding == "original":
            for block in backbone.model.transformer_blocks:
                block.norm1.emb.time_proj.downscale_freq_shift = FREQUENCY_SHIFT
                block.norm3.eps = EPSILON
        return backbone

    def hidden_states(self, output: Any) -> torch.Tensor:
        hidden = super().hidden_states(output)
        # An encoder's map is not a row of tokens yet.
        return hidden.flatten(2).mT if hidden.ndim == 4 else hidden

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # The row after the last class is the null class of guidance (Meta's
        # LabelEmbedder).
        null_class = torch.full_like(steps, self.model.config.num_embeds_ada_norm)
        return self.model(latents, timestep=steps, class_labels=null_class)


class _ReadFirst(nn.Module):
    """Gives an encoder's own map as block 0, and embeds latents as before."""

    def __init__(self, own_map: nn.Module, embed: nn.Module) -> None:
        super().__init__()
        self.own_map = own_map
        self.embed = embed

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        if self.own_map._forward_hooks:
            self.own_map(latents)
        return self.embed(latents)


def _comes_from_meta(source: Source) -> bool:
    """Whether a checkpoint's configurations say that Meta's release was converted."""
    config = source.read_json("transformer/config.json") or {}
    index = source.read_json("model_index.json") or {}
    paths = [str(one.get("_name_or_path")) for one in (config, index)]
    if source.on_hub:
        paths.append(source.location)
    if any(map(META_RELEASE.search, paths)):
        return True
    legacy = config.get("_class_name") == LEGACY_CLASS or LEGACY_ENTRY in config
    # All models of the release learn a variance for each channel (learn_sigma).
    return legacy and config.get("out_channels") == 2 * config.get("in_channels", 4)
