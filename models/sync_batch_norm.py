"""Batch normalisation over the images of all processes, any of which may have none."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pwlu.fused.norms import synchronized_batch_norm


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


def is_synchronized(module: nn.Module) -> bool:
    """Return True for the modules that `synchronize_batch_norm` makes."""
    return isinstance(module, SafeSyncBatchNorm | SyncBatchNorm2d)


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

    process_group = None  # all processes, as nn.SyncBatchNorm has it: see pwlu.fuse_batch_norm

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        uses_batch = self.training or self.running_mean is None
        if not uses_batch or (_is_alone() and _own_count(x) >= 2):
            return super().forward(x)
        return synchronized_batch_norm(self, x)


class SafeSyncBatchNorm(nn.SyncBatchNorm):
    """nn.SyncBatchNorm for GPUs, which also takes inputs without elements, in one or all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if _count_of_all(x) < 2:  # the same on every process; torch's own would spoil its running statistics
            return synchronized_batch_norm(self, x)
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
