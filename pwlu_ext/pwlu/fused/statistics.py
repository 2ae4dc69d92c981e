"""What a BatchNorm normalises a batch by, over all processes."""

import torch
import torch.distributed as dist
from torch import Tensor

from ..moments import moments


@torch.no_grad()
def batch_statistics(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, int | Tensor]:
    """Return mean and (biased) variance per channel, shape (C,), and the number of each channel's elements.

    They are of x, (N, C, *), or of the x of all processes of `group`, any of which may be empty; then the
    number is a tensor, shape (), float64. Mean and variance are float32, or float64 if x is.
    """
    mean, variance = moments(x)
    elements = x.numel() // x.shape[1]
    if group is None:
        return mean, variance, elements
    own = torch.stack([torch.full_like(mean, elements), mean, variance]).double()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    counts, means, variances = torch.stack(parts, dim=1)
    total = counts.sum(0)
    divisor = total.clamp(min=1)
    common = (counts * means).sum(0) / divisor
    # Each process's squares are around its own mean: a sum of squares around zero would cancel.
    squares = (counts * (variances + (means - common).square())).sum(0)
    return common.to(mean.dtype), (squares / divisor).to(mean.dtype), total[0]
