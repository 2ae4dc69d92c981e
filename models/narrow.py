"""Narrow networks, for studies on a CPU, under names that timm knows once this package is imported."""

from typing import Any

import timm
from timm.models import register_model
from timm.models.efficientnet import _gen_efficientnet
from torch import nn


@register_model
def resnet18_025(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ResNet-18 with a quarter of the channels, 16 to 128; `kwargs` are those of timm's ResNet.

    Raises ValueError if `pretrained` is true: there are no trained weights.
    """
    _refuse_trained(pretrained, "resnet18_025")
    # timm's ResNet has a stem of one convolution at 64 channels alone, so this is ResNet-C's, of three.
    narrow: dict[str, Any] = {"channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 8}
    network: nn.Module = timm.create_model("resnet18", **(narrow | kwargs))
    return network


@register_model
def efficientnet_b0_025(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return EfficientNet-B0 with a quarter of the channels, in multiples of 8; see `resnet18_025`."""
    _refuse_trained(pretrained, "efficientnet_b0_025")
    network: nn.Module = _gen_efficientnet("efficientnet_b0", channel_multiplier=0.25, **kwargs)
    return network


def _refuse_trained(pretrained: bool, name: str) -> None:
    if pretrained:
        raise ValueError(f"pretrained=True: {name} has no trained weights; leave it out")
