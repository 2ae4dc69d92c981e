"""Convolutions that all levels of a pyramid share, normalised on each level by its own statistics."""

import torch
from torch import Tensor, nn


class LevelNorm2d(nn.Module):
    """Batch normalisation with statistics per pyramid level; weight and bias serve all levels.

    RetinaNet's subnets run on every level, whose inputs differ in mean and variance: one running mean for all
    would normalise each level by the mixture in evaluation (arXiv 2105.07576, section 5.2).

    Shape:
        input (N, num_channels, H, W) and the level's index, output the same shape.
    """

    def __init__(self, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.levels = nn.ModuleList(nn.BatchNorm2d(num_channels, affine=False) for _ in range(num_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Normalise `x` by the statistics of `level`, from 0."""
        normalized = self.levels[level](x)
        return normalized * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LevelBlock(nn.Module):
    """3x3 convolution, normalisation per level, activation: one activation site for all levels."""

    def __init__(self, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight, std=0.01)  # as both libraries
        self.norm = LevelNorm2d(num_channels, num_levels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Return the block's output for the map of `level`, from 0."""
        y: Tensor = self.act(self.norm(self.conv(x), level))
        return y
