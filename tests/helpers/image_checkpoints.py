"""Small text-to-image pipelines, saved by diffusers' own pipelines as on the hub."""

import shutil

import diffusers
import torch
import transformers
from helpers.image_dits import DITS
from helpers.image_flow_transformers import FLOW_TRANSFORMERS
from helpers.image_unets import UNETS
from helpers.representation import RAE, rae

# Pipeline and parts by the name of a family.
FAMILIES = DITS | FLOW_TRANSFORMERS | UNETS
# Families whose pipelines pack 2 x 2 latents to a token.
PACKED = "flux-schnell", "flux-dev", "chroma", "qwen-image"


def parts_of(family):
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    return FAMILIES[family][1]()


def save_parts(family, parts, folder):
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            _spread(part)
    getattr(diffusers, FAMILIES[family][0])(**parts).save_pretrained(folder)
    return folder


def save_pipeline(family, folder):
    """Save a family's small pipeline as its maker would have."""
    return save_parts(family, parts_of(family), folder)


def save_on_representation(family, folder):
    """Save a family's small model with a representation autoencoder for its VAE.

    No pipeline of diffusers builds such a pair. Returns the autoencoder.
    """
    parts = parts_of(family)
    denoiser = "unet" if "unet" in parts else "transformer"
    config = dict(parts[denoiser].config)
    config.pop("_use_default_values", None)
    before = config["in_channels"]
    packed = 4 if family in PACKED else 1
    config["in_channels"] = RAE["encoder_hidden_size"] * packed
    if config.get("out_channels"):
        config["out_channels"] = (
            config["out_channels"] * config["in_channels"] // before
        )
    parts[denoiser] = type(parts[denoiser]).from_config(config)
    save_parts(family, parts, folder)
    shutil.rmtree(folder / "vae")
    encoder = rae().eval()
    encoder.save_pretrained(folder / "vae")
    return encoder


def _spread(module):
    """Draw what is initialised to zero or one, so that nothing is left out unseen."""
    for parameter in module.parameters():
        if parameter.numel() and float(parameter.detach().std(correction=0)) == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
