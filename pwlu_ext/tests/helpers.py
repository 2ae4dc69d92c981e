"""What the tests share: random functions, inputs clear of the knots, the comparison with the reference."""

import io
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from pwlu import PWLU, pwlu, pwlu_reference

NAMES = ("left", "right", "points", "left_slope", "right_slope")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ROOT = Path(__file__).parents[2]

Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Operator = Callable[..., Tensor]
T = TypeVar("T")
BOTH = pytest.mark.parametrize("operator", [pwlu, pwlu_reference], ids=["kernel", "reference"])


def random_parameters(
    groups: int, num_intervals: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Parameters:
    """Functions with boundaries around -1.5 and 1.5, and points and slopes of either sign."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(device, dtype)

    left, right = uniform(-2.5, -0.5, groups), uniform(0.5, 2.5, groups)
    points = uniform(-2, 2, groups, num_intervals + 1)
    return left, right, points, uniform(-2, 2, groups), uniform(-2, 2, groups)


def function(
    left: float, right: float, points: list[float], left_slope: float, right_slope: float, device: str = "cpu"
) -> Parameters:
    """One function of these numbers."""
    numbers = ([left], [right], [points], [left_slope], [right_slope])
    return tuple(torch.tensor(n, device=device) for n in numbers)


def layer(parameters: Parameters, channel_dim: int = 1) -> PWLU:
    """A PWLU with these parameters."""
    points = parameters[2]
    groups, columns = points.shape
    module = PWLU(groups, columns - 1, channel_dim=channel_dim, dtype=points.dtype, device=points.device)
    with torch.no_grad():
        for name, value in zip(NAMES, parameters, strict=True):
            getattr(module, name).copy_(value)
    return module


def bent_module(num_parameters: int = 3, num_intervals: int = 5, device: str = "cpu") -> PWLU:
    """A PWLU that is no ReLU any more: with :func:`random_parameters`."""
    return layer(random_parameters(num_parameters, num_intervals, device=device))


def channel_shape(dims: int, groups: int, channel_dim: int) -> list[int]:
    """The shape that lets a vector of `groups` numbers broadcast along `channel_dim`."""
    shape = [1] * dims
    if groups > 1:
        shape[channel_dim] = groups
    return shape


def spread_inputs(
    shape: tuple[int, ...],
    parameters: Parameters,
    channel_dim: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> Tensor:
    """Inputs over both tails and all intervals, none near a knot, where the gradient jumps."""
    left, right, points, *_ = (p.detach().double().cpu() for p in parameters)
    groups, num_intervals = points.shape[0], points.shape[1] - 1
    generator = torch.Generator().manual_seed(seed)
    margin = max(2, num_intervals // 3)
    cell = torch.randint(-margin, num_intervals + margin, shape, generator=generator)
    position = cell + 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    view = channel_shape(len(shape), groups, channel_dim)
    interval = ((right - left) / num_intervals).view(view)
    return (left.view(view) + position * interval).to(parameters[0].device, dtype)


def folded_tables(groups: int, num_intervals: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """left, interval (of both signs), slopes (some flat) and offsets of a FoldedPWLU."""
    generator = torch.Generator().manual_seed(num_intervals)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=wide)

    interval = (normal(groups).abs() + 0.1) * 4 / num_intervals
    interval[::2] *= -1
    slopes = normal(groups, num_intervals + 2)
    slopes[:, 0] = 0
    return normal(groups) - 2, interval, slopes, normal(groups, num_intervals + 2)


def special_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Normal numbers, and those that need care."""
    x = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -2.0], dtype=torch.float64)
    x.view(-1)[: min(5, x.numel())] = special[: x.numel()]
    return x.to(dtype)


def random_gradient(x: Tensor, seed: int = 2) -> Tensor:
    """An upper gradient with the shape, dtype and device of x."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype)


def evaluate(
    operator: Operator, x: Tensor, parameters: Parameters, grad: Tensor, channel_dim: int = 1
) -> dict[str, Tensor]:
    """y and the gradients of all six inputs."""
    x = x.detach().requires_grad_()
    parameters = tuple(p.detach().requires_grad_() for p in parameters)
    y = operator(x, *parameters, channel_dim=channel_dim)
    gradients = torch.autograd.grad(y, (x, *parameters), grad)
    return {"y": y.detach(), **dict(zip(("x", *NAMES), gradients, strict=True))}


def assert_matches_reference(
    operator: Operator, x: Tensor, parameters: Parameters, channel_dim: int = 1, grad: Tensor | None = None
) -> dict[str, Tensor]:
    """Compare with the reference in float64, to the rounding of x's dtype; returns the operator's results.

    The parameters' gradients are sums of terms that may cancel: their error is relative to the largest one.
    """
    grad = random_gradient(x) if grad is None else grad
    actual = evaluate(operator, x, parameters, grad, channel_dim)
    exact = tuple(p.double() for p in parameters)
    expected = evaluate(pwlu_reference, x.double(), exact, grad.double(), channel_dim)
    arithmetic = 1e-12 if x.dtype == torch.float64 else 2e-5
    rounding = 0.505 * torch.finfo(x.dtype).eps  # to nearest
    for name, value in actual.items():
        of_x = name in ("x", "y")
        assert value.dtype == (x.dtype if of_x else parameters[0].dtype), name
        scale = expected[name].abs().max().item() if expected[name].numel() else 0.0
        torch.testing.assert_close(
            value.double(),
            expected[name],
            rtol=rounding if of_x else 0,
            atol=arithmetic * max(1.0, scale),
            msg=lambda text, name=name: f"{name}: {text}",
        )
    return actual


def saved_whole(objects: T) -> T:
    """What torch.load gives of objects that were saved by torch.save, i.e. pickled."""
    stored = io.BytesIO()
    torch.save(objects, stored)
    stored.seek(0)
    return torch.load(stored, weights_only=False)


def environment_of_one_thread(**more: str) -> dict[str, str]:
    """This process's environment, for one that it starts."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def two_ranks_and_one(module: str, folder: Path) -> dict[str, Any]:
    """Run `python -m module folder rank size` for ranks 0 and 1 of 2 and for 0 of 1, at the same time.

    Each saves what it ends with as `{rank}_of_{size}.pt` in `folder`; returned by these names.
    """
    runs = {"0_of_2": (0, 2), "1_of_2": (1, 2), "0_of_1": (0, 1)}
    command = [sys.executable, "-m", module, str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank), str(size)], cwd=ROOT, env=environment_of_one_thread())
        for rank, size in runs.values()
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0, 0]
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in runs}


def run_python(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own, from the repository's root; returns output and exit code."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment_of_one_thread(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
