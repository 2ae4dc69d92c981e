"""The Funnel ReLU (FReLU): Ma, Zhang, Sun, arXiv 2007.11824 (ECCV 2020)."""

import torch
from torch import Tensor, nn


class FReLU(nn.Module):
    """y = max(x, T(x)), where T is a depthwise 3x3 convolution followed by batch normalisation.

    Shape:
        input (N, num_channels, H, W), output the same.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        # No bias and torch's default start: the normalisation removes a bias and the weight's scale.
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1, groups=num_channels, bias=False)
        self.norm = nn.BatchNorm2d(num_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.norm(self.conv(x)).to(x.dtype))
