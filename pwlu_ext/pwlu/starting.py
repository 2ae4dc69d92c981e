"""What a PWLU starts as: "existing activation functions such as ReLU" (section 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .suggestion import expected_one_of

SLOPE = 0.25  # of "leaky_relu" below 0, where `init_slope` names no other: PReLU's start


@dataclass(frozen=True)
class StartingFunction:
    """An activation function of one tensor, element by element.

    Attributes:
        name: how reports call it.
        function: returns a tensor of x's shape and dtype; torch can differentiate it.
        left_slope: of its asymptote towards minus infinity; None: the tail of a PWLU gets the slope at the
            boundary.
        right_slope: the same towards infinity.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    left_slope: float | None = None
    right_slope: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        y = self.function(x)
        return y.clone() if y is x else y  # what comes next may work in place

    def tail_slopes(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slopes outside of the boundaries `left` and `right`, in their shape."""
        return _slope(self, left, self.left_slope), _slope(self, right, self.right_slope)


STARTS = {
    start.name: start
    for start in (
        StartingFunction("relu", F.relu, 0.0, 1.0),
        StartingFunction("leaky_relu", partial(F.leaky_relu, negative_slope=SLOPE), SLOPE, 1.0),
        StartingFunction("silu", F.silu, 0.0, 1.0),
        StartingFunction("gelu", F.gelu, 0.0, 1.0),
        StartingFunction("hardswish", F.hardswish, 0.0, 1.0),
        # Below 6 it still rises: a slope of 0 would cut it off. Over means up to 1 and deviations up to 1.5
        # that is 40 times as far from it in mean squares, and at heavier tails than the normal twice as far.
        # The others' asymptotes are near at the boundaries.
        StartingFunction("relu6", F.relu6, 0.0, None),
        StartingFunction("tanh", torch.tanh, 0.0, 0.0),
        StartingFunction("identity", torch.clone, 1.0, 1.0),
    )
}


def starting_function(
    init: str | Callable[[Tensor], Tensor], init_slope: float | Tensor | None = None
) -> StartingFunction:
    """Return the starting function that `init` is or names; `init_slope` is that of "leaky_relu" below 0.

    Raises:
        ValueError: an unknown name; a slope for another function, or none that is finite; a callable that is
            no function of one tensor element by element, changes its argument, or has parameters to learn.
    """
    if isinstance(init, str) and init not in STARTS:
        raise ValueError(
            f"PWLU: {expected_one_of('`init`', init, STARTS)} (a callable of one tensor serves too)"
        )
    if init_slope is not None:
        return _leaky_relu(init, init_slope)
    if isinstance(init, str):
        return STARTS[init]
    if not callable(init):
        raise ValueError(f"PWLU: `init` must be a name or a callable of one tensor, but is {init!r}.")
    if isinstance(init, StartingFunction):
        _check_callable(init.function)
        return init
    _check_callable(init)
    return StartingFunction(getattr(init, "__name__", type(init).__name__), init)


def _leaky_relu(init: object, init_slope: float | Tensor) -> StartingFunction:
    if init != "leaky_relu":
        raise ValueError(f"PWLU: `init_slope` is for init='leaky_relu' only, but `init` is {init!r}.")
    try:
        slope = float(init_slope.detach() if isinstance(init_slope, Tensor) else init_slope)
    except (TypeError, ValueError):
        slope = float("nan")
    if not abs(slope) <= torch.finfo(torch.float32).max:
        raise ValueError(
            f"PWLU: `init_slope` must be a finite number or a tensor of them, but is {init_slope!r}."
        )
    return StartingFunction("leaky_relu", partial(F.leaky_relu, negative_slope=slope), slope, 1.0)


def slope_per_function(slopes: Tensor, like: Tensor) -> Tensor:
    """Return a copy of `slopes`, shape (num_parameters,) or (1,), in the shape, dtype and device of `like`.

    Raises:
        ValueError: another shape, or integers.
    """
    if slopes.shape == (1,):
        slopes = slopes.expand_as(like)  # one learned slope for all functions
    if slopes.shape != like.shape or not slopes.is_floating_point():
        raise ValueError(
            f"PWLU: `init_slope` must be a number or a tensor of one slope per function, shape "
            f"{tuple(like.shape)}, but has shape {tuple(slopes.shape)} and dtype {slopes.dtype}."
        )
    return slopes.detach().to(like, copy=True)


def _slope(start: StartingFunction, boundary: Tensor, asymptote: float | None) -> Tensor:
    if asymptote is not None:
        return torch.full_like(boundary, asymptote)
    with torch.inference_mode(False), torch.enable_grad():
        at = boundary.clone().requires_grad_()
        (slope,) = torch.autograd.grad(start(at).sum(), at)
    return slope


@torch.inference_mode(False)
@torch.enable_grad()
def _check_callable(function: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for what no PWLU can start as."""
    name = f"PWLU: `init` ({function!r})"
    if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
        raise ValueError(
            f"{name} has parameters, which would not learn. Give a function without any; "
            "replace_activations(init='replaced') takes over PReLU's slopes."
        )
    x = torch.linspace(-4, 4, 96, device="cpu").reshape(6, 16)
    # In another order and shape, and of another mean, smallest and largest element.
    given, among_others = x.clone(), x.clone().requires_grad_().flip(0, 1)[1:-2].reshape(3, 2, 4, 2)
    try:
        with torch.device("cpu"):  # what the function makes itself
            y, again = function(given), function(among_others)
    except Exception as error:
        raise ValueError(
            f"{name} must take a tensor of any shape, but fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        found = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{name} must return a tensor of its argument's shape and dtype, but returns {found}."
        )
    if given._version > 0:
        raise ValueError(f"{name} changes its argument in place; give a function that does not.")
    if not again.requires_grad:
        raise ValueError(
            f"{name} has no derivative that torch knows, so nothing before it would learn in phase I."
        )
    # Each element by itself, and always alike: not softmax, a normalisation or dropout.
    if has_values(x) and not torch.allclose(
        again.reshape(3, 16), y.flip(0, 1)[1:-2], rtol=1e-4, atol=1e-5, equal_nan=True
    ):
        raise ValueError(f"{name} must be a function of each element by itself, always the same.")


def has_values(tensor: Tensor) -> bool:
    """Return whether there are numbers in it to look at: it is neither on the meta device nor fake."""
    return type(tensor) is Tensor and not tensor.is_meta
