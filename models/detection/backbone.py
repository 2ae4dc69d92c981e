"""What is below the detectors' heads in both libraries: timm's network and, in RetinaNet, P6 and P7."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..timm_networks import check_timm_name, create_network

TRUNK_STRIDES_PX = (4, 8, 16, 32)  # of C2, C3, C4, C5


class Trunk(nn.Module):
    """A network of four stages without pooling and classifier; `build_trunk` makes one.

    Shape:
        images (N, 3, H, W), output [C2, C3, C4, C5], C_k of shape (N, channels[k - 2], H / 2^k, W / 2^k),
        sizes rounded up.
    """

    def __init__(self, stages: nn.Module, channels: list[int]) -> None:
        super().__init__()
        self.stages = stages
        self.channels = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.stages(images)
        return features


def build_trunk(name: str, *, pretrained: bool = False) -> Trunk:
    """Build timm's network `name` (resnet50 in the paper), without its pooling and classifier.

    timm's ResNets have an activation module at every site (49 in ResNet-50). Nothing is frozen. Raises
    ValueError where timm does not have it, its last four stages are not of strides 4, 8, 16, 32, or the
    weights of a `pretrained` one cannot be had.
    """
    check_timm_name(name)
    needed = f"a detector needs a network whose last stages have strides {TRUNK_STRIDES_PX}, e.g. resnet50"
    try:
        stages: Any = create_network(
            name, pretrained=pretrained, features_only=True, out_indices=(-4, -3, -2, -1)
        )
    except (RuntimeError, AssertionError, IndexError) as error:
        raise ValueError(
            f"model name is {name!r}, which timm cannot cut into stages ({error}); {needed}"
        ) from error
    strides = tuple(stages.feature_info.reduction())
    if strides != TRUNK_STRIDES_PX:
        raise ValueError(f"model name is {name!r}, whose last stages have strides {strides}; {needed}")
    return Trunk(stages, stages.feature_info.channels())


def stages_of(detector: nn.Module) -> nn.Module:
    """Return timm's network in a detector."""
    (trunk,) = (module for module in detector.modules() if isinstance(module, Trunk))
    return trunk.stages


class P6P7(nn.Module):
    """RetinaNet's two coarsest levels: P6 = conv(C5), P7 = conv(act(P6)), both of stride 2.

    `has_site`: whether the ReLU between them is a module, which can be replaced, or `F.relu`.

    Shape:
        input (N, in_channels, H, W), output [P6, P7] of shapes (N, out_channels, H / 2, W / 2) and
        (N, out_channels, H / 4, W / 4), sizes rounded up.
    """

    num_levels = 2  # these two are what detectron2 asks of the top of a pyramid
    in_feature = "res5"

    def __init__(self, in_channels: int, out_channels: int, *, has_site: bool) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            assert conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)  # as both libraries
            nn.init.zeros_(conv.bias)
        self.act = nn.ReLU() if has_site else None

    def forward(self, c5: Tensor) -> list[Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6) if self.act is None else self.act(p6))]
