"""Which family serves a model, by what its configuration says."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sklearn_difffeat.checkpoints._source import DENOISERS, Source

if TYPE_CHECKING:
    from sklearn_difffeat.backbones._base import Backbone

MASKED_LM = "masked_lm", "MaskedLMBackbone"
# The class or model type that a configuration names -> module and class here.
FAMILIES = {
    "AuraFlowTransformer2DModel": ("auraflow", "AuraFlowBackbone"),
    "ChromaTransformer2DModel": ("flux", "ChromaBackbone"),
    "CogView4Transformer2DModel": ("cogview4", "CogView4Backbone"),
    "DiTTransformer2DModel": ("dit", "DiTBackbone"),
    "Flux2Transformer2DModel": ("flux2", "Flux2Backbone"),
    "FluxTransformer2DModel": ("flux", "FluxBackbone"),
    "HunyuanDiT2DModel": ("hunyuandit", "HunyuanDiTBackbone"),
    "HunyuanImageTransformer2DModel": ("hunyuanimage", "HunyuanImageBackbone"),
    "Lumina2Transformer2DModel": ("lumina2", "Lumina2Backbone"),
    "PixArtTransformer2DModel": ("pixart", "PixArtBackbone"),
    "QwenImage21Transformer2DModel": ("qwenimage21", "QwenImage21Backbone"),
    "QwenImageTransformer2DModel": ("qwenimage", "QwenImageBackbone"),
    "SD3Transformer2DModel": ("sd3", "SD3Backbone"),
    "SanaTransformer2DModel": ("sana", "SanaBackbone"),
    "UNet2DConditionModel": ("unet", "UNetBackbone"),
    "UNet2DModel": ("ddpm", "DDPMBackbone"),
    "ZImageTransformer2DModel": ("zimage", "ZImageBackbone"),
    "bert": MASKED_LM,
    "camembert": MASKED_LM,
    "deberta-v2": MASKED_LM,
    "distilbert": MASKED_LM,
    "eurobert": MASKED_LM,
    "modernbert": MASKED_LM,
    "nomic_bert": MASKED_LM,
    "roberta": MASKED_LM,
    "xlm-roberta": MASKED_LM,
    "bd3lm": ("block_diffusion", "BD3LMBackbone"),
    "mdlm": ("mdlm", "MDLMBackbone"),
    "llada": ("llada", "LLaDABackbone"),
    "llada2_moe": ("block_diffusion", "LLaDA2Backbone"),
    "lladamoe": ("llada", "LLaDAMoEBackbone"),
    "sdar": ("block_diffusion", "SDARBackbone"),
    "Dream": ("dream", "DreamBackbone"),
}
# Older checkpoints name one class for several architectures; this key tells them apart.
LEGACY_FAMILIES = {
    ("Transformer2DModel", "ada_norm_zero"): "DiTTransformer2DModel",
    ("Transformer2DModel", "ada_norm_single"): "PixArtTransformer2DModel",
}


def _declared_family(source: Source) -> str | None:
    configs = (source.read_json(f"{part}/config.json") for part in DENOISERS)
    denoiser = next(filter(None, configs), None)
    if denoiser is not None:
        declared = str(denoiser.get("_class_name"))
        legacy = declared, str(denoiser.get("norm_type"))
        return LEGACY_FAMILIES.get(legacy, declared)
    config = source.read_json("config.json")
    flat = config is not None and config.get("_class_name")
    if source.find("model_index.json") is not None and not flat:
        raise ValueError(
            f"backbone={source.name!r} is a diffusion pipeline without a transformer/ "
            "or unet/ sub-folder; download or save it again, with all sub-folders."
        )
    return flat or (None if config is None else config.get("model_type"))


def _is_masked_lm(model_type: str | None) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def family_of(source: Source) -> type[Backbone]:
    """Return the class that serves a source.

    Raises
    ------
    ValueError
        When the configuration names no known family.
    """
    declared = _declared_family(source)
    if declared not in FAMILIES and not _is_masked_lm(declared):
        found = f"of family {declared!r}" if declared else "no model of a known layout"
        raise ValueError(
            f"backbone={source.name!r} is {found}; the families known are "
            f"{sorted(FAMILIES)}."
        )
    module, name = FAMILIES.get(declared or "", MASKED_LM)
    return getattr(import_module(f"sklearn_difffeat.backbones.{module}"), name)
