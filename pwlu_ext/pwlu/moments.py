"""Mean and variance per channel, in one pass over a tensor."""

import torch
from torch import Tensor

_KERNEL = torch.ops.pwlu.moments.default
_TINY = 1e-30  # added to a variance, so that 1 / sqrt of none is finite


@torch.no_grad()
def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance per channel of x, (N, C, *): each of shape (C,), zeros if x is empty.

    They are float32, or float64 if x is.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.numel() == 0:
        zeros = x.new_zeros(x.shape[1], dtype=wide)
        return zeros, zeros
    if torch.compiler.is_compiling() or not (x.is_cpu or x.is_cuda):
        variance, mean = torch.var_mean(x.to(wide), all_but_channels(x), correction=0)
        return mean, variance
    if x.is_cuda:
        mean, invstd = torch.batch_norm_stats(x, _TINY)
        return mean, torch.where(invstd > 0.9 * _TINY**-0.5, 0, invstd**-2)
    return _KERNEL(x)  # torch.var_mean takes five times as long


def all_but_channels(x: Tensor) -> list[int]:
    """Return the dimensions of x, (N, C, *), that statistics per channel are over."""
    return [dim for dim in range(x.dim()) if dim != 1]


@torch.library.register_fake("pwlu::moments")
def _moments_fake(x: Tensor) -> tuple[Tensor, Tensor]:
    numbers = x.new_empty((2, x.shape[1]), dtype=torch.promote_types(x.dtype, torch.float32))
    return numbers[0], numbers[1]
