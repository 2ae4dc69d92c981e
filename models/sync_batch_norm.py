"""Batch normalisation over the images of all processes, on GPUs and on CPUs, and over none."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation of `model` (those in FReLU too) use the elements of all processes.

    On GPUs it becomes an nn.SyncBatchNorm, on CPUs, where that one refuses to run, a `SyncBatchNorm2d`. Both
    take empty inputs (an image without an object has no regions for the mask head), also in a single process.
    Parameters, buffers and their names stay the same, so do training flags. Call it before the optimizer or
    DistributedDataParallel see the model.

    Returns:
        The model, changed in place; a new module if `model` itself is a batch normalisation.

    Raises:
        ValueError: a subclass of torch's batch normalisations, or one that is not two-dimensional.
    """
    kind = SafeSyncBatchNorm if device.type == "cuda" else SyncBatchNorm2d
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _converted(child, kind))
    return _converted(model, kind) if isinstance(model, _BatchNorm) else model


def _converted(norm: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    if type(norm) is kind:
        return norm
    if type(norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm2d, SafeSyncBatchNorm):
        raise ValueError(
            f"the model has a {type(norm).__name__}, which cannot be synchronised; expected nn.BatchNorm2d"
        )
    new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new._parameters, new._buffers = norm._parameters, norm._buffers
    return new.train(norm.training)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the elements of all processes, for tensors on CPUs.

    In training each channel is normalised by the mean and the variance of the elements that the processes
    have together, weighted by their numbers: the same, forward and backward, as one process with all of them
    computes. A process may have no element at all. If none has any, running statistics stay as they are; a
    single element per channel has no (unbiased) variance, so it leaves them alone as well, and its output is
    the bias. As with nn.SyncBatchNorm the gradients of weight and bias are of the process's own elements.

    All processes of the default group must call it, and its backward, in the same order. Without a group, and
    in eval mode, it is nn.BatchNorm2d.

    Shape:
        input (N, C, H, W), output the same, N >= 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        self._check_input_dim(x)
        uses_batch = self.training or self.running_mean is None
        if not uses_batch or (_alone() and _has_variance(x)):
            return super().forward(x)
        y, count, mean, var = _Normalize.apply(x, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None:
            self._move_running_statistics(count, mean, var)
        return y

    @torch.no_grad()
    def _move_running_statistics(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """As nn.BatchNorm2d does, with the unbiased variance; by nothing if there is none."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        if count < 2:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), weight)


class SafeSyncBatchNorm(nn.SyncBatchNorm):
    """nn.SyncBatchNorm for GPUs, which also takes inputs without elements.

    torch's own has three gaps there: alone it fails; under autocast the process without elements sends
    numbers of another width than its peers; if no process has an element it mixes zeros into the running
    statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (N, C, H, W), N >= 0."""
        if not self.training or _has_variance(x):
            return super().forward(x)
        if _alone():
            y, *_ = _Normalize.apply(x, self.weight, self.bias, self.eps)
            return y
        if x.numel() > 0:
            return super().forward(x)
        return self._forward_without_elements(x)

    def _forward_without_elements(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        before = self.running_mean.clone(), self.running_var.clone()
        y = super().forward(x.float()).to(x.dtype)
        # Where a peer has elements their variance moves at least one channel away from this.
        decayed = before[1] * (1 - (self.momentum or 0.0))
        no_peer = ((self.running_var - decayed).abs() <= 1e-6 * decayed).all()
        for running, old in zip((self.running_mean, self.running_var), before, strict=True):
            running.copy_(torch.where(no_peer, old, running))
        if self.weight is None or self.bias is None:
            return y
        return y + (0 * (self.weight + self.bias)).view(
            1, -1, 1, 1
        )  # a gradient of zero, where torch has none


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _has_variance(x: Tensor) -> bool:
    """Return whether there are two elements per channel."""
    return x.numel() >= 2 * x.shape[1]


class _Normalize(torch.autograd.Function):
    """Normalises x (N, C, H, W) by all processes' statistics; returns y, count (), mean, variance (C,)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        value = x.to(torch.promote_types(x.dtype, torch.float32))
        count, mean, var = _global_statistics(value)
        scale = (var + eps).rsqrt()
        normalized = (value - _per_channel(mean)) * _per_channel(scale)
        ctx.save_for_backward(normalized, weight, scale, count)
        y = normalized if weight is None else normalized * _per_channel(weight)
        y = y if bias is None else y + _per_channel(bias)
        ctx.mark_non_differentiable(count, mean, var)
        return y.to(x.dtype), count, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        normalized, weight, scale, count = ctx.saved_tensors
        dtype, grad = grad.dtype, grad.to(normalized.dtype)
        own = torch.stack([grad.sum((0, 2, 3)), (grad * normalized).sum((0, 2, 3))])
        of_all = own.clone()
        if not _alone():
            dist.all_reduce(of_all)
        mean_grad, mean_product = of_all / count.clamp(min=1)
        centred = grad - _per_channel(mean_grad) - normalized * _per_channel(mean_product)
        grad_x = centred * _per_channel(scale if weight is None else scale * weight)
        own_bias, own_weight = own
        if weight is None:
            return grad_x.to(dtype), None, None, None
        return grad_x.to(dtype), own_weight, own_bias, None


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance per channel of all processes' x; of no elements 0, zeros and zeros.

    Every process's mean and sum of squares around it are gathered and merged: a sum of squares around zero
    would cancel.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    mean = x.mean((0, 2, 3)) if count else x.new_zeros(channels)
    squares = (x - _per_channel(mean)).square().sum((0, 2, 3))
    rows = _gathered(torch.cat([mean.new_tensor([count]), mean, squares]))
    counts, means, squares = rows[:, :1], rows[:, 1 : 1 + channels], rows[:, 1 + channels :]
    total = counts.sum()
    divisor = total.clamp(min=1)
    common = (counts * means).sum(0) / divisor
    var = (squares + counts * (means - common).square()).sum(0) / divisor
    return total, common, var


def _gathered(row: Tensor) -> Tensor:
    """Stack the rows of all processes."""
    if _alone():
        return row[None]
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
