"""Laws that hold for any function and any input (hypothesis)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pwlu import pwlu, pwlu_reference
from pwlu_ext.tests.helpers import Parameters, evaluate

# A fixed sequence of examples: a failure comes back in every run.
reproducible = settings(derandomize=True, deadline=None, max_examples=60, database=None)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32)


@st.composite
def functions(draw: st.DrawFn, min_width: float = 0.125) -> Parameters:
    """One function in float64, of numbers that float32 holds."""
    num_intervals = draw(st.integers(1, 24))
    left = draw(numbers(-8, 8))
    right = left + draw(numbers(min_width, 16))
    points = draw(st.lists(numbers(-8, 8), min_size=num_intervals + 1, max_size=num_intervals + 1))
    slopes = draw(numbers(-4, 4)), draw(numbers(-4, 4))
    rows = ([left], [right], [points], [slopes[0]], [slopes[1]])
    return tuple(torch.tensor(row, dtype=torch.float64) for row in rows)


inputs = st.lists(numbers(-32, 32), min_size=1, max_size=40).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


@reproducible
@given(functions(min_width=-4.0), inputs)
def test_equals_the_reference(function: Parameters, x: Tensor) -> None:
    """Also where the boundaries meet or cross."""
    actual = evaluate(pwlu, x, function, torch.ones_like(x))
    expected = evaluate(pwlu_reference, x, function, torch.ones_like(x))
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)


@reproducible
@given(
    functions(), inputs, st.integers(1, 5), st.sampled_from([torch.contiguous_format, torch.channels_last])
)
def test_float32_equals_the_reference(
    function: Parameters, x: Tensor, copies: int, layout: torch.memory_format
) -> None:
    """On whole vectors and parts of them, in both orders of memory."""
    single = tuple(p.float().expand(copies, *p.shape[1:]).clone() for p in function)
    image = x.float().expand(2, copies, -1).unsqueeze(-1)
    image = image.contiguous(memory_format=layout)
    steepest = max(1.0, function[2].diff().abs().max().item() * function[2].numel() / 0.125)
    y = pwlu(image, *single).double()
    torch.testing.assert_close(
        y, pwlu_reference(image.double(), *(p.double() for p in single)), rtol=1e-5, atol=2e-5 * steepest
    )


@reproducible
@given(functions(), inputs, st.sampled_from([1e-9, 1e-7, 1e-5]))
def test_continuous(function: Parameters, x: Tensor, step: float) -> None:
    """A small step changes y by no more than the steepest slope allows, across knots and boundaries too."""
    left, right, points, left_slope, right_slope = function
    d = (right - left) / (points.shape[1] - 1)
    everywhere = torch.cat([x, left, right, (left + d * torch.arange(points.shape[1]))])
    steepest = torch.cat([points.diff()[0].abs() / d, left_slope.abs(), right_slope.abs()]).max()
    change = pwlu(everywhere + step / 2, *function) - pwlu(everywhere - step / 2, *function)
    assert (change.abs() <= steepest * step * (1 + 1e-6) + 1e-12).all()


@reproducible
@given(functions(), inputs)
def test_gradients_of_the_boundaries_and_x_add_up(function: Parameters, x: Tensor) -> None:
    """As moving x and both boundaries together changes nothing (Table 1: rows 1 to 3)."""
    result = evaluate(pwlu, x, function, torch.ones_like(x))
    total = result["x"].sum() + result["left"] + result["right"]
    scale = 1 + result["x"].abs().sum().item()
    assert total.abs().item() <= 1e-9 * scale


@reproducible
@given(functions(), inputs)
def test_gradients_of_the_points_add_up(function: Parameters, x: Tensor) -> None:
    """As adding a number to all points adds it to y: every element's weights sum to 1."""
    result = evaluate(pwlu, x, function, torch.ones_like(x))
    assert abs(result["points"].sum().item() - x.numel()) <= 1e-9 * x.numel()
    assert (result["points"] >= 0).all()
