"""PWLU as two convolutions with a ReLU between them: for runtimes that run operators one by one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_arguments
from ..layer import Layer
from .hinges import HingePWLU


class ConvolutionPWLU(Layer):
    """A PWLU for inference as y = sum of a max(0, s (x - B)) + O with signs s, made by `pwlu.fold`.

    The hinges are those of `pwlu.HingePWLU`, and rounding as there; its line is two hinges at one knot. A
    convolution of one number each, grouped by channels, makes all of them; a second one adds them up.

    The buffers stay float32 under ``.half()`` and ``.bfloat16()``; inputs (N, C, *) may be of those dtypes.

    Args:
        hinges: what to write so.
    """

    signs: Tensor
    shifts: Tensor
    weights: Tensor
    offset: Tensor

    def __init__(self, hinges: HingePWLU) -> None:
        super().__init__()
        self.channel_dim = hinges.channel_dim
        line, upper, upper_bends = hinges.slope[:, None], hinges.upper, hinges.upper_bends
        if upper.shape[1] == 0:
            upper, upper_bends = torch.zeros_like(line), torch.zeros_like(line)
        # The line turns around the first of the upper knots: beyond it the line is part of that hinge.
        center = upper[:, :1]
        knots = torch.cat([hinges.lower, center, upper], 1)
        weights = torch.cat([hinges.lower_bends, -line, upper_bends[:, :1] + line, upper_bends[:, 1:]], 1)
        signs = torch.ones_like(knots)
        signs[:, : hinges.lower.shape[1] + 1] = -1
        self.register_buffer("signs", signs.reshape(-1, 1, 1))
        self.register_buffer("shifts", (-signs * knots).reshape(-1))
        self.register_buffer("weights", weights[:, :, None])
        self.register_buffer("offset", (center * line)[:, 0] + hinges.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        groups = len(self.offset)
        table = self.weights[:, :, 0]
        check_arguments(x, {"weights": table}, {"offset": self.offset}, self.channel_dim, more_columns=-1)
        moved = x if groups == 1 else x.movedim(self.channel_dim, 1)
        flat = moved.to(table.dtype).reshape(len(x), groups, moved.shape[1:].numel() // groups)
        hinges = torch.relu(F.conv1d(flat, self.signs, self.shifts, groups=groups))
        y = F.conv1d(hinges, self.weights, self.offset, groups=groups).reshape(moved.shape)
        return (y if groups == 1 else y.movedim(1, self.channel_dim)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{len(self.offset)}, num_hinges={self.weights.shape[1]}, channel_dim={self.channel_dim}"
