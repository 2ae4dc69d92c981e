"""The paper's formulas against numbers worked out by hand, for the reference and for the kernels alike."""

import math

import pytest
import torch
from torch import Tensor

from pwlu_ext.tests.helpers import BOTH, NAMES, Operator, evaluate, random_parameters, spread_inputs


def hand_made() -> tuple[Tensor, ...]:
    """B_L = -1, B_R = 5, N = 3, so d = 2 and the knots are -1, 1, 3, 5; slopes inside: -1.5, 0.5, 2."""
    numbers = ([-1.0], [5.0], [[2.0, -1.0, 0.0, 4.0]], [0.5], [-2.0])
    return tuple(torch.tensor(n, dtype=torch.float64) for n in numbers)


@BOTH
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (-3.0, (-3.0 + 1) * 0.5 + 2),
        (-1.0, 2.0),  # B_L belongs to the first interval
        (0.0, 2 + 1 * -1.5),
        (1.0, -1.0),  # a knot belongs to the interval on its right
        (1.5, -1 + 0.5 * 0.5),
        (3.0, 0.0),
        (4.5, 0 + 1.5 * 2),
        (5.0, 4.0),  # B_R belongs to the right tail
        (7.0, (7.0 - 5) * -2 + 4),
    ],
)
def test_equation_1(operator: Operator, x: float, y: float) -> None:
    result = operator(torch.tensor([x], dtype=torch.float64), *hand_made())
    assert result.item() == pytest.approx(y, abs=1e-15)


# x, then the derivatives by x, B_L, B_R, K_L, K_R and by each of the four points
TABLE_1 = {
    "left tail": (-3.0, 0.5, -0.5, 0.0, -2.0, 0.0, [1.0, 0.0, 0.0, 0.0]),
    "first interval": (-0.5, -1.5, -1.5 * -5.5 / 6, -1.5 * -0.5 / 6, 0.0, 0.0, [0.75, 0.25, 0.0, 0.0]),
    "at B_L": (-1.0, -1.5, -1.5 * -6 / 6, 0.0, 0.0, 0.0, [1.0, 0.0, 0.0, 0.0]),
    "middle interval": (2.5, 0.5, 0.5 * -2.5 / 6, 0.5 * -3.5 / 6, 0.0, 0.0, [0.0, 0.25, 0.75, 0.0]),
    "at a knot": (3.0, 2.0, 2 * -2.0 / 6, 2 * -4.0 / 6, 0.0, 0.0, [0.0, 0.0, 1.0, 0.0]),
    "last interval": (4.0, 2.0, 2 * -1.0 / 6, 2 * -5.0 / 6, 0.0, 0.0, [0.0, 0.0, 0.5, 0.5]),
    "at B_R": (5.0, -2.0, 0.0, 2.0, 0.0, 0.0, [0.0, 0.0, 0.0, 1.0]),
    "right tail": (8.0, -2.0, 0.0, 2.0, 0.0, 3.0, [0.0, 0.0, 0.0, 1.0]),
}


@BOTH
@pytest.mark.parametrize("where", TABLE_1)
def test_table_1(operator: Operator, where: str) -> None:
    x, dx, d_left, d_right, d_left_slope, d_right_slope, d_points = TABLE_1[where]
    upper = torch.tensor([3.0], dtype=torch.float64)
    result = evaluate(operator, torch.tensor([x], dtype=torch.float64), hand_made(), upper)
    expected = dict(x=dx, left=d_left, right=d_right, left_slope=d_left_slope, right_slope=d_right_slope)
    for name, value in expected.items():
        assert result[name].item() == pytest.approx(3 * value, abs=1e-14), name
    assert result["points"].tolist() == [pytest.approx([3 * value for value in d_points], abs=1e-14)]


def table_1_of_one_channel(x: Tensor, g: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Table 1 element by element, with the letters of the paper, summed over x."""
    b_l, b_r, y_p = p["left"].item(), p["right"].item(), p["points"].tolist()
    k_l, k_r, n = p["left_slope"].item(), p["right_slope"].item(), len(y_p) - 1
    d = (b_r - b_l) / n
    total = {name: torch.zeros_like(p[name]) for name in NAMES}
    dx = []
    for value, upper in zip(x.tolist(), g.tolist(), strict=True):
        if value < b_l:
            dx.append(upper * k_l)
            total["left"] += upper * -k_l
            total["left_slope"] += upper * (value - b_l)
            total["points"][0] += upper
        elif value >= b_r:
            dx.append(upper * k_r)
            total["right"] += upper * -k_r
            total["right_slope"] += upper * (value - b_r)
            total["points"][n] += upper
        else:
            idx = math.floor((value - b_l) / d)
            b_idx, k_idx = b_l + idx * d, (y_p[idx + 1] - y_p[idx]) / d
            dx.append(upper * k_idx)
            total["left"] += upper * k_idx * (value - b_r) / (b_r - b_l)
            total["right"] += upper * k_idx * (b_l - value) / (b_r - b_l)
            total["points"][idx] += upper * (b_idx + d - value) / d
            total["points"][idx + 1] += upper * (value - b_idx) / d
    return {"x": torch.tensor(dx, dtype=x.dtype), **total}


@BOTH
def test_table_1_summed_over_channels(operator: Operator) -> None:
    parameters = random_parameters(4, 9, torch.float64)
    x = spread_inputs((3, 4, 10), parameters)
    grad = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    x = x.double()
    result = evaluate(operator, x, parameters, grad)
    for channel in range(4):
        own = {name: p[channel] for name, p in zip(NAMES, parameters, strict=True)}
        expected = table_1_of_one_channel(x[:, channel].flatten(), grad[:, channel].flatten(), own)
        torch.testing.assert_close(result["x"][:, channel].flatten(), expected.pop("x"))
        for name, value in expected.items():
            torch.testing.assert_close(result[name][channel], value, msg=name)
