"""BatchNorms that leave the normalising to the PWLU behind them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..library import cuda_is_loaded
from ..norms import calls_its_activation
from ..ops import is_transformed
from .normalizing import Normalizing, Term, is_recomputed
from .operator import Norm, Source, batch_norm
from .statistics import batch_statistics


class FusedNorm:
    """Mixed into a BatchNorm's class: it gives a `Normalizing`, wherever a PWLU's kernel could take it."""

    # A class of its own, and not a hook or another `forward` of the instance, goes through copies, pickles,
    # torch.compile and FSDP2.

    has_graph = True  # whether autograd was at work at the last eager call that was not a recomputation

    def forward(self: Any, input: Tensor) -> Any:
        """Return a `Normalizing`, or what the BatchNorm's own forward gives."""
        has_kernel = _has_kernel(self, input)
        waits = has_kernel and _can_wait(self)
        if not waits and not (has_kernel and (_group(self) is not None or is_recomputed())):
            return _base(self).forward(self, input)
        output = Normalizing(Term(input, self)) if waits else self.apart(input)
        return self.act(self.drop(output)) if calls_its_activation(_base(self)) else output

    def apart(self: Any, x: Tensor) -> Tensor:
        """Return the BatchNorm's output alone."""
        if _group(self) is not None:
            # As where it is fused: other processes may do that.
            return synchronized_batch_norm(self, x)
        if is_recomputed() and _uses_batch(self):
            return _again(self, x)
        base = _base(self)
        plain: Any = base.__mro__[1] if calls_its_activation(base) else base
        y: Tensor = plain.forward(self, x)
        return y

    def begin(self: Any, x: Tensor) -> Norm:
        """Return what to normalise x by; in training the running statistics move."""
        return _begin(self, x)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _new, (_base(self),), self.__getstate__()


def _base(norm: Any) -> Any:
    """Return the class that a fused BatchNorm had before."""
    kinds = type(norm).__mro__
    return kinds[kinds.index(FusedNorm) + 1]


@cache
def _fused_class(base: Any) -> Any:
    return type(f"Fused{base.__name__}", (FusedNorm, base), {"__module__": base.__module__})


def _new(base: Any) -> Any:
    fused = _fused_class(base)
    return fused.__new__(fused)


def fuse(norm: _BatchNorm) -> None:
    """Let a BatchNorm wait for the PWLU behind it; parameters, buffers and hooks stay."""
    kind: Any = type(norm)
    norm.__class__ = _fused_class(kind)


def unfuse(norm: nn.Module) -> None:
    """Undo `fuse`."""
    if isinstance(norm, FusedNorm):
        norm.__class__ = _base(norm)


def _again(norm: Any, x: Tensor) -> Tensor:
    """Return what a forward pass returned; running statistics have moved then."""
    mean, variance = (None if s is None else s.clone() for s in (norm.running_mean, norm.running_var))
    return F.batch_norm(x, mean, variance, norm.weight, norm.bias, training=True, eps=norm.eps)


def synchronized_batch_norm(norm: Any, x: Tensor) -> Tensor:
    """Return what a BatchNorm in training mode makes of x, (N, C, *), with the elements of all processes.

    All processes of its `process_group` must call it; any of them may have no element. With fewer than two
    elements per channel in all there is no variance, and running statistics stay. The gradients of weight and
    bias are of the process's own elements.
    """
    return batch_norm(x, _begin(norm, x))


def _begin(norm: Any, x: Tensor) -> Norm:
    mean, invstd, source = _statistics(norm, x)
    if hasattr(norm.weight, "full_tensor"):
        raise RuntimeError(
            "pwlu: FSDP2 has sharded the weights of a fused BatchNorm again before the PWLU behind it ran. "
            "Give both to one call of fully_shard, or do not call fuse_batch_norm."
        )
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    return Norm(weight, bias, mean, invstd, source)


@torch.no_grad()
def _statistics(norm: Any, x: Tensor) -> tuple[Tensor, Tensor, Source]:
    """Return the mean and one over the deviation to normalise x by; in training running statistics move."""
    if not _uses_batch(norm):
        # A copy: a training step before the backward pass may move it.
        return norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt(), Source(norm.eps, False)
    group = _group(norm)
    mean, variance, elements = batch_statistics(x, group)
    if norm.training and norm.track_running_stats and not is_recomputed():
        _move_running_statistics(norm, mean, variance, elements)
    source = Source(norm.eps, True, group, elements if isinstance(elements, Tensor) else None)
    return mean, (variance + norm.eps).rsqrt(), source


def _has_kernel(norm: Any, x: Any) -> bool:
    """Return whether the kernels take x, on all processes alike; else the BatchNorm's own forward serves."""
    if is_transformed() or torch.jit.is_tracing() or torch.compiler.is_exporting() or type(x) is not Tensor:
        return False
    if not (x.is_cpu or (x.is_cuda and cuda_is_loaded())):
        return False
    if x.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return False
    if x.dim() < 2 or x.shape[1] != norm.num_features:
        return False
    dtype = torch.promote_types(x.dtype, torch.float32)
    for number in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if number is not None and number.dtype != dtype:
            return False
    norm._check_input_dim(x)
    if _group(norm) is not None:
        return not torch.compiler.is_compiling()
    return x.numel() >= 2 * x.shape[1] or not _uses_batch(norm)


def _can_wait(norm: Any) -> bool:
    """Return whether a PWLU may compute the output: nobody else has a hold on it."""
    # Hooks might keep the output, and those of the backward pass need a tensor to hang on to.
    of_all = torch.nn.modules.module
    has_hooks = (
        norm._forward_hooks
        or norm._backward_hooks
        or norm._backward_pre_hooks
        or of_all._global_forward_hooks
        or of_all._global_backward_hooks
        or of_all._global_backward_pre_hooks
    )
    # In training without autograd the output may leave a segment that is checkpointed, and leaves it again
    # where that is recomputed.
    if torch.compiler.is_compiling():
        has_graph = torch.is_grad_enabled()
    else:
        if not is_recomputed():
            norm.has_graph = torch.is_grad_enabled()
        has_graph = norm.has_graph
    return not has_hooks and (has_graph or not norm.training)


def _uses_batch(norm: Any) -> bool:
    return norm.training or (norm.running_mean is None and norm.running_var is None)


def _group(norm: Any) -> dist.ProcessGroup | None:
    """Return the processes that share statistics; None if this one is alone."""
    if not (hasattr(norm, "process_group") and norm.training):
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _move_running_statistics(norm: Any, mean: Tensor, variance: Tensor, elements: int | Tensor) -> None:
    if norm.running_mean is None:
        return
    # Of several processes the number is known on their devices alone. With fewer than two there is no
    # variance, and all stays.
    momentum: Any
    if isinstance(elements, Tensor):
        has_variance = elements >= 2
        momentum = _momentum(norm, has_variance) * has_variance.double()
        unbiased = momentum * (elements / (elements - 1).clamp(min=1))
        mean, variance = (torch.where(has_variance, new, 0) for new in (mean, variance))
    elif elements >= 2:
        momentum = _momentum(norm, 1)
        unbiased = momentum * (elements / (elements - 1))
    else:
        return
    # Unlike with lerp_ an infinity stays one, as in torch's.
    norm.running_mean.mul_(1 - momentum).add_(momentum * mean)
    norm.running_var.mul_(1 - momentum).add_(unbiased * variance)


def _momentum(norm: Any, count: int | Tensor) -> Any:
    """Count a batch, or none; return the weight of its statistics in the running ones."""
    if norm.num_batches_tracked is None:
        return 0.0 if norm.momentum is None else norm.momentum
    norm.num_batches_tracked.add_(count)
    return 1 / norm.num_batches_tracked.clamp(min=1).double() if norm.momentum is None else norm.momentum
