"""PWLU as a layer."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import check_dtype
from .layer import Layer, at_least_single
from .ops import pwlu
from .sharding import write_whole
from .statistics import StepStatistics

torch.fx.wrap("pwlu")  # symbolic_trace takes the call as it is: what decides inside it is not known yet


class PWLU(Layer):
    """The Piecewise Linear Unit (section 3.1) with learnable boundaries, points and slopes.

    It starts as ReLU on [-bound, bound] (section 3.3; exactly so for an even `num_intervals`, otherwise with
    a small gap around 0) and, used alone, learns from the first step: the paper's fix-init-x with x = bound.
    For the two-phase learning hand the model to `pwlu.TwoPhaseLearning`.

    Parameters stay float32 under ``.half()`` and ``.bfloat16()``, and where a state dict of those dtypes is
    loaded; inputs (N, C, *) may be of those dtypes.

    Args:
        num_parameters: number of functions: 1 (layer-wise) or the number of channels (channel-wise).
        num_intervals: the paper's N; 8 to 16 is its recommendation (section 4.5).
        bound: the boundaries start at -bound and bound.
        channel_dim: the dimension of the input that holds the channels; ignored if num_parameters is 1.
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Attributes:
        left: B_L, shape (num_parameters,).
        right: B_R, the same.
        left_slope: K_L, the same.
        right_slope: K_R, the same.
        points: Y_P, shape (num_parameters, num_intervals + 1).
        running_mean: of the input (Eq. 5), shape (num_parameters,); zero until collected.
        running_std: the same.
    """

    left: nn.Parameter
    right: nn.Parameter
    points: nn.Parameter
    left_slope: nn.Parameter
    right_slope: nn.Parameter
    running_mean: Tensor
    running_std: Tensor

    def __init__(
        self,
        num_parameters: int,
        num_intervals: int = 16,
        bound: float = 3.0,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(num_parameters, num_intervals, bound, dtype)
        self.num_parameters = num_parameters
        self.num_intervals = num_intervals
        self.bound = float(bound)
        self.channel_dim = channel_dim
        self.statistics: StepStatistics | None = None  # present in phase I only; TwoPhaseLearning sets it

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=device, dtype=dtype or torch.float32)

        for name in ("left", "right", "left_slope", "right_slope"):
            setattr(self, name, nn.Parameter(empty(num_parameters)))
        self.points = nn.Parameter(empty(num_parameters, num_intervals + 1))
        for name in ("running_mean", "running_std"):
            self.register_buffer(name, empty(num_parameters))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Become ReLU on [-bound, bound]; forget the statistics."""
        right = torch.full_like(self.running_mean, self.bound)  # whole also where `self.right` is sharded
        self.reset_to_relu(-right, right)
        self.running_mean.zero_()
        self.running_std.zero_()

    @torch.no_grad()
    def reset_to_relu(self, left: Tensor, right: Tensor) -> None:
        """Become ReLU on [left, right], each of shape (num_parameters,): Eq. 6 without its first line."""
        steps = (
            torch.arange(self.num_intervals + 1, device=left.device, dtype=left.dtype) / self.num_intervals
        )
        knots = left[:, None] + steps * (right - left)[:, None]  # B_idx, Eq. 3
        # In place: optimizers and DistributedDataParallel keep their hold on the parameters.
        write_whole(self.left, left)
        write_whole(self.right, right)
        write_whole(self.points, knots.relu())
        self.left_slope.fill_(0)
        self.right_slope.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function; in phase I's training steps that is ReLU, and statistics of x are collected."""
        parameters = (self.left, self.right, self.points, self.left_slope, self.right_slope)
        if self.statistics is None or not self.training:
            return pwlu(x, *parameters, channel_dim=self.channel_dim)
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            raise RuntimeError(
                "PWLU: phase I cannot be traced or exported: what is recorded would collect nothing and stay "
                "ReLU for ever. Do it in eval mode, or after phase I."
            )
        _check_dtype(self.left, x)
        self.statistics.update(x.detach(), self.channel_dim, self.left)
        # torch.compile takes no side effect of a backward pass.
        statistics = None if torch.compiler.is_compiling() else self.statistics
        return _FrozenReLU.apply(x, statistics, *parameters)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"{self.num_parameters}, num_intervals={self.num_intervals}, channel_dim={self.channel_dim}"

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles are not in phase I: no TwoPhaseLearning would end it for them, and an average of
        # the weights that was begun in phase I would be ReLU for ever in training mode.
        return {**self.__dict__, "statistics": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PWLU":
        if self.statistics is not None:
            self.statistics.apply(at_least_single(fn))
        return super()._apply(fn, recurse)


def _check_dtype(left: Tensor, x: Tensor) -> None:
    # The operator checks it in phase II, which would be late.
    if left.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"PWLU: parameters must stay float32, but are {left.dtype}. Do not cast them. Where FSDP2's "
            "MixedPrecisionPolicy does, first give the PWLUs a group of their own without one: "
            "fully_shard([m for m in model.modules() if isinstance(m, pwlu.PWLU)])."
        )
    check_dtype("left", left, x)


class _FrozenReLU(torch.autograd.Function):
    """ReLU that gives the parameters of the PWLU that it stands for gradients of zero."""

    # So they are part of the graph in phase I: DistributedDataParallel waits for every parameter's gradient.

    @staticmethod
    def forward(ctx: Any, x: Tensor, statistics: StepStatistics | None, *parameters: Tensor) -> Tensor:
        y = F.relu(x)
        ctx.statistics = statistics
        ctx.save_for_backward(y, *parameters)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, *parameters = ctx.saved_tensors
        if ctx.statistics is not None:
            ctx.statistics.had_backward = True
        # What F.relu's own backward calls. A product with a mask would make a NaN of an infinite gradient.
        grad_x = torch.ops.aten.threshold_backward.default(grad, y, 0)
        return (grad_x, None, *(torch.zeros_like(parameter) for parameter in parameters))


def _check_arguments(
    num_parameters: int, num_intervals: int, bound: float, dtype: torch.dtype | None
) -> None:
    for name, value in (("num_parameters", num_parameters), ("num_intervals", num_intervals)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"PWLU: `{name}` must be a positive integer, but is {value!r}.")
    if not 0 < bound < float("inf"):
        raise ValueError(f"PWLU: `bound` must be positive and finite, but is {bound!r}.")
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"PWLU: parameters are float32 or float64, but `dtype` is {dtype}.")
