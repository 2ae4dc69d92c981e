"""What a BatchNorm normalises a batch by, over all processes."""

import torch
import torch.distributed as dist
from torch import Tensor

MOMENTS = torch.ops.pwlu.moments.default
_TINY = 1e-30  # added to a variance, so that 1 / sqrt of none is finite


@torch.no_grad()
def batch_statistics(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and (biased) variance per channel, shape (C,), and the number of their elements, shape ().

    They are of x, (N, C, *), or of the x of all processes of `group`, any of which may be empty. The number
    is float64; mean and variance are float32, or float64 if x is.
    """
    mean, variance = _moments(x)
    elements = torch.full((), x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
    if group is None:
        return mean, variance, elements
    own = torch.stack([elements.expand_as(mean), mean.double(), variance.double()])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    counts, means, variances = torch.stack(parts, dim=1)
    total = counts.sum(0)
    divisor = total.clamp(min=1)
    common = (counts * means).sum(0) / divisor
    # Each process's squares are around its own mean: a sum of squares around zero would cancel.
    squares = (counts * (variances + (means - common).square())).sum(0)
    return common.to(mean.dtype), (squares / divisor).to(mean.dtype), total[0]


def all_but_channels(x: Tensor) -> list[int]:
    """Return the dimensions that a BatchNorm takes statistics over."""
    return [dim for dim in range(x.dim()) if dim != 1]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.numel() == 0:
        zeros = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        return zeros, zeros
    if torch.compiler.is_compiling():
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, all_but_channels(x), correction=0)
        return mean, variance
    if x.is_cuda:
        mean, invstd = torch.batch_norm_stats(x, _TINY)
        return mean, invstd**-2
    return MOMENTS(x)
