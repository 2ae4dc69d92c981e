"""What the operator does where the paper's formula is silent, or where rounding decides."""

import math

import pytest
import torch
from torch import Tensor

from pwlu import fold, pwlu, pwlu_reference
from pwlu_ext.tests.helpers import (
    DTYPES,
    NAMES,
    Operator,
    assert_matches_reference,
    evaluate,
    function,
    layer,
    random_parameters,
    spread_inputs,
)

INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max


def assert_same_as_reference(x: Tensor, parameters: tuple[Tensor, ...], grad: Tensor | None = None) -> None:
    """In the dtype of x, NaN and infinities included; for numbers of which no other dtype is an image."""
    grad = torch.ones_like(x) if grad is None else grad
    actual = evaluate(pwlu, x, parameters, grad)
    expected = evaluate(pwlu_reference, x, parameters, grad)
    for name in actual:
        torch.testing.assert_close(actual[name], expected[name], equal_nan=True, msg=name)


# NaN and infinity in x


def folded(x: Tensor, *parameters: Tensor) -> Tensor:
    """The inference form of the function."""
    return fold(layer(parameters))(x)


EITHER = pytest.mark.parametrize("operator", [pwlu, folded], ids=["pwlu", "folded"])


@EITHER
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_nan_stays_where_it_is(
    device: str, dtype: torch.dtype, memory_format: torch.memory_format, operator: Operator
) -> None:
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(3, 16, kept, device)
    x = spread_inputs((2, 3, 5, 7), parameters, dtype=dtype).contiguous(memory_format=memory_format)
    spoilt = x.clone(memory_format=torch.preserve_format)
    spoilt[:, 1, 2:4, ::2] = NAN
    y, clean = operator(spoilt, *parameters), operator(x, *parameters)
    assert torch.equal(y.isnan(), spoilt.isnan())
    assert torch.equal(y[~spoilt.isnan()], clean[~spoilt.isnan()])


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1, 0x7F800001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nan_of_a_parameter_survives_rounding(device: str, dtype: torch.dtype, bits: int) -> None:
    """Whatever its payload: rounding to bfloat16 by adding to the bits could carry it over to 0."""
    left, right, points, *slopes = random_parameters(1, 4, device=device)
    points = torch.full_like(points, bits, dtype=torch.int32).view(torch.float32)
    x = torch.linspace(-4, 4, 50).to(device, dtype)
    assert pwlu(x, left, right, points, *slopes).isnan().all()


def test_nan_spoils_the_gradients_of_its_own_channel_only(device: str) -> None:
    parameters = random_parameters(3, 4, device=device)
    x = spread_inputs((2, 3, 40), parameters)
    clean = evaluate(pwlu, x, parameters, torch.ones_like(x))
    x[0, 1, 7] = NAN
    spoilt = evaluate(pwlu, x, parameters, torch.ones_like(x))
    assert_same_as_reference(x, parameters)
    for name in NAMES:
        assert torch.equal(spoilt[name][[0, 2]], clean[name][[0, 2]]), name


@EITHER
@pytest.mark.parametrize(
    ("left_slope", "right_slope", "y_left", "y_right"),
    [(0.0, 1.0, 5.0, INF), (2.0, -3.0, -INF, -INF), (-1.0, 0.0, INF, 7.0), (-0.0, -0.0, 5.0, 7.0)],
)
def test_infinity_follows_its_tail(
    device: str, left_slope: float, right_slope: float, y_left: float, y_right: float, operator: Operator
) -> None:
    """ReLU of -inf is 0, so a flat tail must not make 0 * inf = NaN of it."""
    parameters = function(-1.0, 1.0, [5.0, 6.0, 7.0], left_slope, right_slope, device)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.tensor([-INF, INF] * 20, device=device, dtype=dtype, requires_grad=True)
        y = operator(x, *parameters)
        assert y.tolist() == [y_left, y_right] * 20
        y.sum().backward()
        assert x.grad.tolist() == [left_slope, right_slope] * 20


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (0.5, -2.0), (0.0, 0.0)])
def test_gradients_at_infinity_are_no_nan(device: str, slopes: tuple[float, float]) -> None:
    parameters = function(-1.0, 1.0, [0.0, 2.0, 1.0], *slopes, device)
    x = torch.tensor([-INF, INF, 0.3, -INF], device=device)
    for grad in ([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.5, -0.25, 0.0, -0.5]):
        upper = torch.tensor(grad, device=device)
        assert_same_as_reference(x, parameters, upper)
        result = evaluate(pwlu, x, parameters, upper)
        assert all(not result[name].isnan().any() for name in ("x", *NAMES))
        assert result["x"].tolist() == [
            grad[0] * slopes[0],
            grad[1] * slopes[1],
            -grad[2],
            grad[3] * slopes[0],
        ]


# Boundaries that meet or cross


@pytest.mark.parametrize("right", [1.0, 0.0, -5.0, 1.0 + 1e-7, math.nextafter(1.0, 2.0)])
def test_collapsed_function_is_its_two_tails(device: str, right: float) -> None:
    parameters = function(1.0, right, [3.0, 9.0, 4.0], 0.5, -2.0, device)
    right = parameters[1].item()  # as float32 has it
    x = torch.tensor([-4.0, 0.0, 0.999, 2.0, 30.0], device=device)
    result = evaluate(pwlu, x, parameters, torch.ones_like(x))
    below = [3 + (v - 1) * 0.5 for v in x.tolist()[:3]]
    above = [4 + (v - right) * -2 for v in x.tolist()[3:]]
    assert result["y"].tolist() == pytest.approx(below + above, rel=1e-6)
    assert result["x"].tolist() == [0.5, 0.5, 0.5, -2.0, -2.0]
    assert result["points"].tolist() == [[3.0, 0.0, 2.0]]
    assert result["left"].item() == -1.5 and result["right"].item() == 4.0
    assert_same_as_reference(x, parameters)


def test_collapsed_x_at_left_takes_the_right_tail(device: str) -> None:
    parameters = function(1.0, -1.0, [3.0, 9.0, 4.0], 0.5, -2.0, device)
    assert pwlu(torch.tensor([1.0], device=device), *parameters).item() == 4 + 2 * -2


def test_some_channels_collapsed(device: str) -> None:
    left, right, *others = random_parameters(20, 8, device=device)
    right[::3] = left[::3] - 0.25
    parameters = (left, right, *others)
    x = spread_inputs((2, 20, 5, 3), random_parameters(20, 8, device=device))
    for layout in (torch.contiguous_format, torch.channels_last):
        assert_matches_reference(pwlu, x.contiguous(memory_format=layout), parameters)


# Sizes


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3), (2, 3, 0, 5), (0, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_empty_input(device: str, shape: tuple[int, ...], groups: int, dtype: torch.dtype) -> None:
    x = torch.empty(shape, device=device, dtype=dtype)
    result = evaluate(pwlu, x, random_parameters(groups, 4, device=device), torch.empty_like(x))
    assert result["y"].shape == shape and result["y"].dtype == dtype
    assert result["x"].shape == shape
    assert all(not result[name].any() for name in NAMES)


def test_no_channels(device: str) -> None:
    x = torch.empty(2, 0, 3, device=device)
    assert pwlu(x, *random_parameters(1, 4, device=device)).shape == x.shape


# Very large and very small numbers


def test_huge_inputs(device: str) -> None:
    x = torch.tensor([-LARGEST, -1e38, -1e20, 1e20, 1e38, LARGEST], device=device)
    for slopes in ((0.0, 1.0), (0.25, -0.5), (-1.0, 0.0), (3.0, 3.0)):
        parameters = function(-1.0, 1.0, [0.0, 2.0, 1.0], *slopes, device)
        y = pwlu(x, *parameters)
        expected = [max(-INF, v) * slopes[v > 0] for v in x.double().tolist()]
        expected = [math.copysign(INF, e) if abs(e) > LARGEST else e for e in expected]
        torch.testing.assert_close(
            y.double().cpu(), torch.tensor(expected), rtol=1e-6, atol=2.1, check_dtype=False
        )
        assert_same_as_reference(x, parameters)


TINY = [0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 1.2e-38, -1.2e-38]
NARROW = [1e-45, 1e-39, 1e-37]  # 1 / d is no finite number for the first ones: these are collapsed
EXTREMES = {
    "denormal x": (TINY, (-1.0, 1.0, [3.0, 0.0, 1.0], 0.0, 1.0)),
    "denormal x at a boundary": (TINY, (0.0, 1.0, [3.0, 0.0, 1.0], 0.5, 1.0)),
    "huge numbers": ([-3e38, -2e30, 0.0, 1e30, 3e38], (-1e30, 1e30, [-1e30, 0.0, 5e29], 1.0, 1.0)),
    # B_R - B_L is no finite number: no index can be made of it, and the function is its two tails
    "far apart": ([-INF, -LARGEST, -1.0, 0.0, LARGEST, INF], (-3e38, 3e38, [2.0, 3.0, 1.0], 0.0, 0.0)),
    **{f"narrow {d}": ([-1.0, 0.0, d / 3, d, 1.0], (0.0, d, [2.0, 3.0, 1.0], 0.5, 1.0)) for d in NARROW},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers(device: str, name: str) -> None:
    numbers, parameters = EXTREMES[name]
    x, parameters = torch.tensor(numbers, device=device), function(*parameters, device)
    assert_same_as_reference(x, parameters)
    assert not any(
        value.isnan().any() for value in evaluate(pwlu, x, parameters, torch.ones_like(x)).values()
    )


@pytest.mark.parametrize("broken", NAMES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_parameters_that_are_no_numbers(device: str, broken: str, value: float) -> None:
    """A diverged training: nothing is read out of bounds, and other channels stay as they were."""
    parameters = dict(zip(NAMES, random_parameters(3, 4, device=device), strict=True))
    x = spread_inputs((2, 3, 20), tuple(parameters.values()))
    clean = pwlu(x, *parameters.values())
    parameters[broken] = parameters[broken].clone()
    parameters[broken][1] = value
    y = evaluate(pwlu, x, tuple(parameters.values()), torch.ones_like(x))["y"]
    assert torch.equal(y[:, [0, 2]], clean[:, [0, 2]])
    if value != value:
        torch.testing.assert_close(y, pwlu_reference(x, *parameters.values()), equal_nan=True)
