"""The input statistics of phase I (Eq. 5)."""

from collections.abc import Callable

import torch
from torch import Tensor


class StepStatistics:
    """Count, mean and summed squared deviation of a PWLU's input over one optimizer step, per function."""

    # A step may call a PWLU several times (gradient accumulation, a detector's pyramid levels) or with an
    # empty tensor: parts are merged exactly, weighted by their number of elements. They are not buffers of
    # the module: DistributedDataParallel would overwrite every rank's part with rank 0's.

    def __init__(self, like: Tensor) -> None:
        self.count = torch.zeros((), dtype=like.dtype, device=like.device)
        self.mean = torch.zeros_like(like, requires_grad=False)
        self.deviation = torch.zeros_like(like, requires_grad=False)

    @torch.no_grad()
    def update(self, x: Tensor, channel_dim: int) -> None:
        """Merge the elements of `x` (N, C, *), grouped by channel or, for a single function, all together.

        Raises:
            ValueError: x has another number of channels in `channel_dim` than there are functions.
        """
        groups = self.mean.numel()
        dims = list(range(x.dim()))
        if groups > 1:
            if not -x.dim() <= channel_dim < x.dim() or x.shape[channel_dim] != groups:
                raise ValueError(
                    f"PWLU with {groups} functions: x of shape {tuple(x.shape)} has another number of "
                    f"channels in dimension {channel_dim} (`channel_dim`)."
                )
            dims.remove(channel_dim % x.dim())
        if x.numel() == 0:
            return
        x = x.to(self.mean.dtype)
        # Two passes: torch.var_mean is five times slower on a CPU, and one pass over squares would cancel.
        mean = x.mean(dims, keepdim=True) if dims else x
        deviation = (x - mean).square_().sum(dims) if dims else torch.zeros_like(x)
        self._merge(x.numel() // groups, mean.reshape_as(self.mean), deviation.reshape_as(self.mean))

    def _merge(self, count: int, mean: Tensor, deviation: Tensor) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.deviation += deviation + shift**2 * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count.copy_(total)

    def clear(self) -> None:
        """Forget the step's elements."""
        for tensor in (self.count, self.mean, self.deviation):
            tensor.zero_()

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast together with the module."""
        self.count, self.mean, self.deviation = fn(self.count), fn(self.mean), fn(self.deviation)
