"""The Funnel ReLU (FReLU): Ma, Zhang, Sun, arXiv 2007.11824 (ECCV 2020)."""

import torch
from torch import Tensor, nn


class FReLU(nn.Module):
    """y = max(x, T(x)), where T is a depthwise 3x3 convolution followed by batch normalisation.

    The convolution has no bias, since the normalisation subtracts it again, and torch's default start, since
    the normalisation also removes its scale.

    Args:
        num_channels: size of dimension 1 of the input.

    Shape:
        input (N, C, H, W), output the same.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1, groups=num_channels, bias=False)
        self.norm = nn.BatchNorm2d(num_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to `x`."""
        return torch.maximum(x, self.norm(self.conv(x)).to(x.dtype))
