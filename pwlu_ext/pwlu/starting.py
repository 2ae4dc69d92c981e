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
        function: returns a new tensor of x's shape and dtype; torch can differentiate it.
        left_slope: of its asymptote towards minus infinity; None: it has none, and the tail of a PWLU gets
            the slope at the boundary.
        right_slope: the same towards infinity.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    left_slope: float | None = None
    right_slope: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

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
        StartingFunction("relu6", F.relu6, 0.0, 0.0),
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
            f"PWLU: {expected_one_of('`init`', init, STARTS)}. A callable of one tensor does too."
        )
    if init_slope is not None:
        return _leaky_relu(init, init_slope)
    if isinstance(init, str):
        return STARTS[init]
    if isinstance(init, StartingFunction):
        return init
    if not callable(init):
        raise ValueError(f"PWLU: `init` must be a name or a callable of one tensor, but is {init!r}.")
    _check_callable(init)
    kind = type(init).__name__ if isinstance(init, nn.Module) else getattr(init, "__name__", repr(init))
    return StartingFunction(kind, init)


def _leaky_relu(init: object, slope: float | Tensor) -> StartingFunction:
    if init != "leaky_relu":
        raise ValueError(f"PWLU: `init_slope` is for init='leaky_relu' only, but `init` is {init!r}.")
    slope = float(slope)
    if not -float("inf") < slope < float("inf"):
        raise ValueError(f"PWLU: `init_slope` must be finite, but is {slope!r}.")
    return StartingFunction("leaky_relu", partial(F.leaky_relu, negative_slope=slope), slope, 1.0)


def _slope(start: StartingFunction, boundary: Tensor, asymptote: float | None) -> Tensor:
    if asymptote is not None:
        return torch.full_like(boundary, asymptote)
    with torch.enable_grad():
        at = boundary.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(start(at).sum(), at)
    return slope


def _check_callable(function: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for what cannot be a starting function."""
    name = f"PWLU: `init` ({function!r})"
    if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
        raise ValueError(
            f"{name} has parameters, which would not learn. Give a function without any; "
            "replace_activations(init='replaced') takes over PReLU's slopes."
        )
    x = torch.linspace(-2, 2, 10, device="cpu").reshape(2, 5)
    given = x.clone()
    try:
        y = function(given)
    except Exception as error:
        raise ValueError(
            f"{name} fails on a tensor of shape (2, 5): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        found = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{name} must return a tensor of its argument's shape and dtype, but returns {found}."
        )
    if not torch.equal(given, x):
        raise ValueError(f"{name} changes its argument in place; give a function that does not.")
    # Each element by itself, and always alike: not softmax, a normalisation or dropout.
    if not torch.allclose(function(x.flip(0, 1)[:, 1:]), y.flip(0, 1)[:, 1:], equal_nan=True):
        raise ValueError(f"{name} must be a function of each element by itself, always the same.")
