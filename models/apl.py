"""The Adaptive Piecewise Linear unit (APL): Agostinelli, Hoffman, Sadowski, Baldi, arXiv 1412.6830."""

from typing import Any

import torch
from torch import Tensor, nn


class APL(nn.Module):
    """y = max(0, x) + sum over s of a_s * max(0, -x + b_s), with a_s and b_s learnt for every channel.

    The PWLU paper writes it in section 4.6 and finds S = 3 the most that trains (section 4.1). One function
    per channel, where the original has one per neuron of a map of fixed size.

    `num_hinges` is the paper's S; `slopes` and `hinges` are a_s and b_s, shape (num_hinges, num_channels).
    Input (N, C, *), output the same, in the input's dtype; the arithmetic has the parameters'.
    """

    def __init__(self, num_channels: int, num_hinges: int = 3, channel_dim: int = 1) -> None:
        super().__init__()
        if num_channels < 1 or num_hinges < 1:
            raise ValueError(
                f"APL: `num_channels` and `num_hinges` must be >= 1, but are {num_channels} and {num_hinges}"
            )
        self.channel_dim = channel_dim
        # Starts as ReLU. No a_s is stuck, as the b_s differ; b_s has a gradient as soon as a_s is not 0.
        self.slopes = nn.Parameter(torch.zeros(num_hinges, num_channels))
        # Evenly spread in (-1, 1), well inside a batch-normalised input.
        spread = torch.arange(1, num_hinges + 1) * 2 / (num_hinges + 1) - 1  # -0.5, 0, 0.5 for S = 3
        self.hinges = nn.Parameter(spread[:, None].repeat(1, num_channels))

    def forward(self, x: Tensor) -> Tensor:
        num_hinges, num_channels = self.slopes.shape
        if x.shape[self.channel_dim] != num_channels:
            raise ValueError(
                f"APL: the input has {x.shape[self.channel_dim]} channels in dimension {self.channel_dim} "
                f"(shape {tuple(x.shape)}), expected {num_channels}"
            )
        shape = [1] * x.ndim
        shape[self.channel_dim] = num_channels
        return _APLFunction.apply(
            x, self.slopes.view(num_hinges, *shape), self.hinges.view(num_hinges, *shape)
        )

    def extra_repr(self) -> str:
        num_hinges, num_channels = self.slopes.shape
        return f"{num_channels}, num_hinges={num_hinges}, channel_dim={self.channel_dim}"


class _APLFunction(torch.autograd.Function):
    """The formula with a backward that keeps x alone; plain autograd would keep tensors for every hinge.

    slopes and hinges have shape (S, *) where * broadcasts against x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor, hinges: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes, hinges)
        value = x.to(torch.promote_types(x.dtype, slopes.dtype))
        y = value.clamp(min=0)
        for slope, hinge in zip(slopes, hinges, strict=True):
            y.addcmul_(slope, (hinge - value).clamp_(min=0))
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, slopes, hinges = ctx.saved_tensors
        value, grad = (t.to(torch.promote_types(x.dtype, slopes.dtype)) for t in (x, grad))
        grad_x = grad * (value > 0)
        grad_slopes, grad_hinges = [], []
        for slope, hinge in zip(slopes, hinges, strict=True):
            active = grad * (value < hinge)
            grad_x = grad_x - slope * active
            grad_slopes.append((active * (hinge - value)).sum_to_size(slope.shape))
            grad_hinges.append(slope * active.sum_to_size(slope.shape))
        return grad_x.to(x.dtype), torch.stack(grad_slopes), torch.stack(grad_hinges)
