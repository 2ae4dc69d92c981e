"""Batch normalisation over the images of all processes, any of which may have none."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation of `model` (those in FReLU too) use the elements of all processes.

    They then take empty inputs, also in a single process: an image without an object has no regions for the
    mask head. Call it before the optimizer or DistributedDataParallel see the model. Return the model,
    changed in place; a new module if `model` itself is a batch normalisation. Raises ValueError for a
    subclass of torch's batch normalisations, and for one that is not two-dimensional.
    """
    # nn.SyncBatchNorm refuses to run on CPUs.
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

    Forward and backward are those of one process with all elements; a process may have none. With fewer than
    two elements per channel in all there is no variance, and running statistics stay. As with
    nn.SyncBatchNorm the gradients of weight and bias are of the process's own elements.

    All processes of the default group must call it, and its backward, in the same order.

    Shape:
        input (N, C, H, W), output the same, N >= 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        uses_batch = self.training or self.running_mean is None
        if not uses_batch or (_is_alone() and _own_count(x) >= 2):
            return super().forward(x)
        y, count, mean, var = _Normalize.apply(x, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None and count >= 2:
            self._move_running_statistics(mean, var * count / (count - 1))
        return y

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), weight)


class SafeSyncBatchNorm(nn.SyncBatchNorm):
    """nn.SyncBatchNorm for GPUs, which also takes inputs without elements, in one or all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if _count_of_all(x) < 2:  # the same on every process; torch's own would spoil its running statistics
            return _Normalize.apply(x, self.weight, self.bias, self.eps)[0]
        if x.numel() > 0:
            return super().forward(x)
        # torch's own sends numbers of x's width, under autocast not that of its peers, and gives weight and
        # bias no gradient.
        y = super().forward(x.float()).to(x.dtype)
        return y if self.weight is None else y + 0 * (self.weight + self.bias).view(1, -1, 1, 1)


def _is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _own_count(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _count_of_all(x: Tensor) -> int:
    if _is_alone():
        return _own_count(x)
    count = torch.tensor(_own_count(x), device=x.device)
    dist.all_reduce(count)
    return int(count)


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
        own_bias, own_weight = own = torch.stack([grad.sum((0, 2, 3)), (grad * normalized).sum((0, 2, 3))])
        of_all = own.clone()
        if not _is_alone():
            dist.all_reduce(of_all)
        mean_grad, mean_product = of_all / count.clamp(min=1).to(own.dtype)
        centred = grad - _per_channel(mean_grad) - normalized * _per_channel(mean_product)
        grad_x = (centred * _per_channel(scale if weight is None else scale * weight)).to(dtype)
        if weight is None:
            return grad_x, None, None, None
        return grad_x, own_weight, own_bias, None


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = _own_count(x)
    mean = x.mean((0, 2, 3)) if count else x.new_zeros(x.shape[1])
    # Each process's squares are around its own mean: a sum of squares around zero would cancel.
    squares = (x - _per_channel(mean)).square().sum((0, 2, 3))
    counts, means, squares = _gathered(torch.stack([torch.full_like(mean, count), mean, squares]).double())
    total = counts.sum(0)
    divisor = total.clamp(min=1)
    common = (counts * means).sum(0) / divisor
    var = (squares + counts * (means - common).square()).sum(0) / divisor
    return total[0], common.to(x.dtype), var.to(x.dtype)


def _gathered(own: Tensor) -> Tensor:
    if _is_alone():
        return own[:, None]
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.stack(parts, dim=1)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
