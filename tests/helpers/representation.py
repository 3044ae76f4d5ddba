"""Small DiTs over the feature maps of frozen encoders, in the hub's layout."""

import torch
from diffusers import AutoencoderRAE, DDPMScheduler, DiTTransformer2DModel

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder


def lite():
    """Return an encoder that shrinks pictures to a quarter, with a wider head."""
    encoder = EfficientNetLiteEncoder(
        stages=[[1, 3, 1, 1, 8], [2, 5, 2, 6, 12]],
        stem_channels=8,
        earlier=[0],
        latent_channels=20,
        feature_channels=36,
        block_out_channels=[8, 8, 12],
    )
    encoder.latents_mean.normal_()
    encoder.latents_std.uniform_(0.5, 2)
    return encoder


RAE = {
    "encoder_hidden_size": 64,
    "encoder_patch_size": 8,
    "encoder_num_hidden_layers": 2,
    "encoder_input_size": 32,
}


def rae(**options):
    """Return a representation autoencoder: 4 x 4 latents of any picture."""
    return AutoencoderRAE(
        **RAE,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        patch_size=8,
        latents_mean=torch.randn(64, 1, 1),
        latents_std=torch.rand(64, 1, 1) + 0.5,
        **options,
    )


# SigLIP2's cannot be built by diffusers 0.42 with transformers 5.
ENCODERS = {"lite": lite, "dinov2": rae, "mae": lambda: rae(encoder_type="mae")}


def save(kind, folder):
    """Save encoder, Transformer and schedule; return the parts as they were saved."""
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().eval()
    channels = 20 if kind == "lite" else 64
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        in_channels=channels,
        out_channels=channels,
        sample_size=8 if kind == "lite" else 4,
        patch_size=1,
        num_embeds_ada_norm=1,
    ).eval()
    encoder.save_pretrained(folder / "vae")
    model.save_pretrained(folder / "transformer")
    DDPMScheduler(beta_schedule="linear").save_pretrained(folder / "scheduler")
    return encoder, model
