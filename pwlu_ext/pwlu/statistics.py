"""The input statistics of one step of phase I (Eq. 5)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .moments import moments


class StepStatistics:
    """Count, mean and summed squared deviation of a PWLU's input over one optimizer step, per function."""

    # A step may call a PWLU several times (gradient accumulation, a detector's pyramid levels) or with an
    # empty tensor: parts are merged exactly, weighted by their number of elements. They are not buffers of
    # the module: DistributedDataParallel would overwrite every rank's part with rank 0's.
    # An element that is not finite makes what the step has collected NaN or infinite, up to its end.

    def __init__(self, like: Tensor, *, may_be_skipped: bool = False, in_evaluation: bool = False) -> None:
        self.count = torch.zeros((), dtype=like.dtype, device=like.device)
        self.mean = torch.zeros_like(like)
        self.deviation = torch.zeros_like(like)
        self.dropped = torch.zeros_like(self.count)  # times that what was not finite was dropped
        self._may_be_skipped = may_be_skipped  # a step may end without `clear`: a GradScaler skips it
        self.in_evaluation = in_evaluation  # collects in evaluation mode too
        self.was_called = False  # since `clear`
        self.had_backward = False  # a backward pass since `clear`

    @torch.no_grad()
    def update(self, x: Tensor, channel_dim: int, parameter: Tensor) -> None:
        """Merge the elements of `x` (N, C, *), grouped by channel or, for a single function, all together.

        `parameter`: any of the functions'; it has a gradient after the step's first backward pass.

        Raises:
            ValueError: x is on another device.
        """
        if x.device != self.mean.device:
            raise ValueError(
                f"PWLU: x is on {x.device}, but the statistics of phase I are on {self.mean.device}. "
                "DataParallel cannot collect them from several devices; use DistributedDataParallel."
            )
        self.was_called = True
        if x.numel() == 0:
            return
        if (
            self._may_be_skipped
            and self.had_backward
            and not (parameter.is_leaf and parameter.grad is not None)
        ):
            self._drop_what_is_not_finite()
            self.had_backward = False
        self._merge(*_moments(x, self.mean, channel_dim))

    def _drop_what_is_not_finite(self) -> None:
        # Gradients were made and cleared, but the optimizer made no step: it is of a step that was skipped.
        finite = (self.mean.isfinite() & self.deviation.isfinite()).all()
        for tensor in (self.count, self.mean, self.deviation):
            tensor.copy_(torch.where(finite, tensor, 0))
        self.dropped += ~finite

    def _merge(self, count: int, mean: Tensor, variance: Tensor) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.deviation += count * variance + shift**2 * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count.copy_(total)

    def clear(self) -> None:
        """Forget the step's elements."""
        for tensor in (self.count, self.mean, self.deviation, self.dropped):
            tensor.zero_()
        self.was_called = self.had_backward = False

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast together with the module."""
        for name in ("count", "mean", "deviation", "dropped"):
            setattr(self, name, fn(getattr(self, name)))


def _moments(x: Tensor, like: Tensor, channel_dim: int) -> tuple[int, Tensor, Tensor]:
    """Return number, mean and variance of the elements of each function, in shape and dtype of `like`."""
    functions = like.numel()
    if like.dtype == torch.float64:
        x = x.double()
    if functions == 1:
        x = x if x.dim() > 1 else x.reshape(-1, 1)
    else:
        x = x.movedim(channel_dim, 1) if x.dim() > 1 else x[None]
    mean, variance = moments(x)
    if functions == 1:
        between, mean = torch.var_mean(mean, correction=0)
        variance = variance.mean() + between
    mean, variance = (new.to(like.dtype).reshape_as(like) for new in (mean, variance))
    return x.numel() // functions, mean, variance
