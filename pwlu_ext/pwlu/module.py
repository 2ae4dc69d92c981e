"""PWLU as a layer."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .arguments import broadcast_shape, check_arguments
from .fused.normalizing import Normalizing
from .layer import Layer, at_least_single
from .ops import is_transformed, pwlu
from .sharding import whole, write_whole
from .starting import SLOPE, has_values, slope_per_function, starting_function
from .statistics import StepStatistics

_PLACES = 64  # in an interval, at which `start_gap` looks

# symbolic_trace takes these calls as they are: what decides inside is not known yet.
torch.fx.wrap("pwlu")
torch.fx.wrap("broadcast_shape")


class PWLU(Layer):
    """The Piecewise Linear Unit (section 3.1) with learnable boundaries, points and slopes.

    It starts as a known function (section 3.3): with its values at the knots of [-bound, bound], and outside
    the slopes of its asymptotes (relu6: on the right the slope at the boundary). Used alone it learns
    from the first step: the paper's fix-init-x with x = bound. For the two-phase learning hand the model to
    `pwlu.TwoPhaseLearning`.

    Parameters stay float32 under ``.half()`` and ``.bfloat16()``, and where a state dict of those dtypes is
    loaded; inputs (N, C, *) may be of those dtypes.

    Args:
        num_parameters: number of functions: 1 (layer-wise) or the number of channels (channel-wise).
        num_intervals: the paper's N; 8 to 16 is its recommendation (section 4.5).
        bound: the boundaries start at -bound and bound.
        channel_dim: the dimension of the input that holds the channels; ignored if num_parameters is 1.
        device: of the parameters.
        dtype: of the parameters, float32 or float64.
        init: the starting function: "relu", "leaky_relu", "silu", "gelu", "hardswish", "relu6", "tanh",
            "identity", or any callable of one tensor that works element by element, that torch can
            differentiate and, for `torch.save(model)`, pickle. It gets the slopes at the boundaries outside.
        init_slope: that of "leaky_relu" below 0 (0.25, PReLU's start); a tensor of shape (num_parameters,)
            holds one for each function, of shape (1,) one for all, and goes into the state dict.

    Attributes:
        left: B_L, shape (num_parameters,).
        right: B_R, the same.
        left_slope: K_L, the same.
        right_slope: K_R, the same.
        points: Y_P, shape (num_parameters, num_intervals + 1).
        running_mean: of the input (Eq. 5), shape (num_parameters,); zero until collected.
        running_std: the same.

    Raises:
        ValueError: an argument has a wrong value; `init` is no function that a PWLU can start as.
    """

    left: nn.Parameter
    right: nn.Parameter
    points: nn.Parameter
    left_slope: nn.Parameter
    right_slope: nn.Parameter
    running_mean: Tensor
    running_std: Tensor
    init_slope: Tensor | None

    def __init__(
        self,
        num_parameters: int,
        num_intervals: int = 16,
        bound: float = 3.0,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: str | Callable[[Tensor], Tensor] = "relu",
        init_slope: float | Tensor | None = None,
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
        slopes = init_slope if isinstance(init_slope, Tensor) and init_slope.dim() > 0 else None
        self.starting = starting_function(init, SLOPE if slopes is not None else init_slope)
        if slopes is not None:
            slopes = slope_per_function(slopes, empty(num_parameters))
        self.register_buffer("init_slope", slopes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Become the starting function on [-bound, bound]; forget the statistics."""
        right = torch.full_like(self.running_mean, self.bound)  # whole also where `self.right` is sharded
        self.reset_to_start(-right, right)
        self.running_mean.zero_()
        self.running_std.zero_()

    @torch.no_grad()
    def reset_to_start(self, left: Tensor, right: Tensor) -> None:
        """Become the starting function on [left, right], each of shape (num_parameters,).

        Eq. 6 without its first line. Between two points lies a line, so that of a curve, or of a kink between
        them, a gap is left: see `start_gap`.

        Raises:
            ValueError: the starting function is not finite there; nothing has changed.
        """
        points, left_slope, right_slope = self.start_parameters(left, right)
        # In place: optimizers and DistributedDataParallel keep their hold on the parameters.
        write_whole(self.left, left)
        write_whole(self.right, right)
        write_whole(self.points, points)
        write_whole(self.left_slope, left_slope)
        write_whole(self.right_slope, right_slope)

    @torch.no_grad()
    def start_parameters(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the `points`, `left_slope` and `right_slope` that `reset_to_start` sets; change nothing.

        Raises:
            ValueError: the starting function is not finite there.
        """
        points = self._start(_spread(left, right, self.num_intervals), channel_dim=0)  # at B_idx, Eq. 3
        left_slope, right_slope = self.starting.tail_slopes(left, right)
        if self.init_slope is not None:
            left_slope = self.init_slope
        for value in (points, left_slope, right_slope):
            if has_values(value) and not value.isfinite().all():
                raise ValueError(
                    f"the starting function {self.starting.name}, or its slope, is not finite everywhere "
                    f"between the boundaries {left.min():g} and {right.max():g}."
                )
        return points, left_slope, right_slope

    @torch.no_grad()
    def start_gap(self) -> Tensor:
        """Return how far the function is from its starting function, shape (num_parameters,).

        The largest distance between the boundaries, over a sixth of their distance: over the input's standard
        deviation, where the boundaries are Eq. 6's. Under FSDP2 call it on all processes.
        """
        left, right, points, left_slope, right_slope = (
            whole(self.get_parameter(name))
            for name in ("left", "right", "points", "left_slope", "right_slope")
        )
        x = _spread(left, right, self.num_intervals * _PLACES)
        y = pwlu(x, left, right, points, left_slope, right_slope, channel_dim=0)
        return (y - self._start(x, channel_dim=0)).abs().amax(1) / ((right - left) / 6).abs()

    def start(self, x: Tensor) -> Tensor:
        """Apply the starting function itself, in the shape and dtype of x."""
        return self._start(x, self.channel_dim).to(x.dtype)  # autocast may have made it float32

    def _start(self, x: Tensor, channel_dim: int) -> Tensor:
        if self.init_slope is None:
            return self.starting(x)
        slope = self.init_slope.to(x.dtype).reshape(broadcast_shape(x, self.num_parameters, channel_dim))
        return torch.where(x > 0, x, slope * x)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function; in phase I that is the starting function, and training collects statistics."""
        parameters = (self.left, self.right, self.points, self.left_slope, self.right_slope)
        if isinstance(x, Normalizing):
            y = None if self.statistics is not None else x.through(parameters, self.channel_dim)
            if y is not None:
                return y
            x = x.value()
        if self.statistics is None:
            return pwlu(x, *parameters, channel_dim=self.channel_dim)
        return self._forward_in_phase_1(x, self.statistics, parameters)

    def _forward_in_phase_1(
        self, x: Tensor, statistics: StepStatistics, parameters: tuple[Tensor, ...]
    ) -> Tensor:
        collects = self.training or statistics.in_evaluation
        if torch.jit.is_tracing() or torch.compiler.is_exporting() or isinstance(x, torch.fx.Proxy):
            if collects:
                raise RuntimeError(
                    "PWLU: phase I cannot be traced or exported: what is recorded would collect nothing and "
                    "never learn. Do it in eval mode, or after phase I."
                )
            return self.start(x)
        _check(x, *parameters, channel_dim=self.channel_dim)
        if collects:
            statistics.update(x.detach(), self.channel_dim, self.left)
        if collects or (torch.is_grad_enabled() and not is_transformed()):
            # torch.compile takes no side effect of a backward pass.
            x = _NotLearning.apply(x, None if torch.compiler.is_compiling() else statistics, *parameters)
        return self.start(x)

    @property
    def starts_as(self) -> str:
        """Name of its starting function, with the slope if it has one."""
        name, slopes = self.starting.name, self.init_slope
        if slopes is None:
            slope = self.starting.left_slope if name == "leaky_relu" else None
            return name if slope is None else f"{name}({slope:g})"
        if not has_values(slopes):
            return name
        low, high = (f"{slope:.3g}" for slope in slopes.aminmax())
        return f"{name}({low})" if low == high else f"{name}({low} to {high})"

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        init = "" if self.starts_as == "relu" else f", init={self.starts_as}"
        return (
            f"{self.num_parameters}, num_intervals={self.num_intervals}, channel_dim={self.channel_dim}{init}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Slopes of its own, for each function, come with the weights: a network that is built anew to load
        # them does not know what was replaced.
        slopes = state_dict.get(prefix + "init_slope")
        if self.init_slope is None and isinstance(slopes, Tensor) and slopes.shape == self.running_mean.shape:
            self.init_slope = torch.empty_like(self.running_mean)
            self.starting = starting_function("leaky_relu")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles are not in phase I: no TwoPhaseLearning would end it for them, and an average of
        # the weights that was begun in phase I would be its starting function for ever.
        return {**self.__dict__, "statistics": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PWLU":
        if self.statistics is not None:
            self.statistics.apply(at_least_single(fn))
        return super()._apply(fn, recurse)


def _spread(left: Tensor, right: Tensor, count: int) -> Tensor:
    """Return the ends of `count` equal parts of every [left, right], shape (len(left), count + 1)."""
    steps = torch.arange(count + 1, device=left.device, dtype=left.dtype) / count
    return left[:, None] + steps * (right - left)[:, None]


def _check(x: Tensor, *parameters: Tensor, channel_dim: int) -> None:
    # The operator checks it in phase II, which would be late.
    left, right, points, left_slope, right_slope = parameters
    if left.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"PWLU: parameters must stay float32, but are {left.dtype}. Do not cast them. Where FSDP2's "
            "MixedPrecisionPolicy does, first give the PWLUs a group of their own without one: "
            "fully_shard([m for m in model.modules() if isinstance(m, pwlu.PWLU)])."
        )
    vectors = {"left": left, "right": right, "left_slope": left_slope, "right_slope": right_slope}
    check_arguments(x, {"points": points}, vectors, channel_dim, more_columns=1)


class _NotLearning(torch.autograd.Function):
    """Hand x on, and give the parameters of the PWLU gradients of zero."""

    # So they are part of the graph in phase I: DistributedDataParallel waits for every parameter's gradient.

    @staticmethod
    def forward(ctx: Any, x: Tensor, statistics: StepStatistics | None, *parameters: Tensor) -> Tensor:
        ctx.statistics = statistics
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.statistics is not None:
            ctx.statistics.had_backward = True
        return (grad, None, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors))


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
