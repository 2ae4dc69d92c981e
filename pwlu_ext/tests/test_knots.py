"""Where an interval ends and the next begins: rounding must not choose another one than Eq. 2 does."""

import math

import pytest
import torch
from torch import Tensor

from pwlu import pwlu
from pwlu_ext.tests.helpers import evaluate

BOUNDARIES = [
    (-3.0, 3.0),  # d = 0.375 for 16 intervals, which 1 / d does not represent
    (-1.0, 1.0),
    (-1.1, 2.3),
    (0.1, 0.7),
    (-10.0, -3.3),
    (1000.0, 1001.0),
    (-1e-3, 3e-3),
]


def knots_and_neighbours(left: Tensor, right: Tensor, num_intervals: int) -> Tensor:
    """Every knot of Eq. 3, computed in two ways, and the numbers just before and after."""
    steps = torch.arange(num_intervals + 1, device=left.device, dtype=left.dtype)
    width = right - left
    knots = torch.cat([left + steps * (width / num_intervals), left + width * steps / num_intervals])
    around = [torch.nextafter(knots, torch.full_like(knots, to)) for to in (-math.inf, math.inf)]
    return torch.cat([knots, *around])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("boundaries", BOUNDARIES, ids=str)
def test_interval_at_every_knot(device: str, boundaries: tuple[float, float], dtype: torch.dtype) -> None:
    """It is floor((x - B_L) / d) of a true division (Eq. 2), which the slope that x gets makes visible."""
    left, right = (torch.tensor([b], dtype=dtype, device=device) for b in boundaries)
    for num_intervals in range(1, 65):
        rises = torch.arange(1, num_intervals + 1, dtype=dtype, device=device)
        points = torch.cat([rises.new_zeros(1), rises.cumsum(0)])[None]
        d = (right - left) / num_intervals
        x = knots_and_neighbours(left, right, num_intervals)
        tails = (-1 / d, (num_intervals + 1) / d)
        slope = evaluate(pwlu, x, (left, right, points, *tails), torch.ones_like(x))["x"]
        index = ((x - left) / d).floor().clamp(0, num_intervals - 1)
        index = torch.where(x < left, -2, torch.where(x >= right, num_intervals, index))
        assert torch.equal((slope * d).round(), index + 1), num_intervals


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_interval_at_every_16_bit_number(device: str, dtype: torch.dtype) -> None:
    """All 65536 of them; the arithmetic is float32."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    x = x[~x.isnan()]
    points = [float(i * i) for i in range(17)]
    parameters = tuple(torch.tensor(n, device=device) for n in ([-3.0], [3.0], [points], [0.0], [1.0]))
    left, right, *_ = parameters
    slope = evaluate(pwlu, x, parameters, torch.ones_like(x))["x"]
    index = ((x.float() - left) / 0.375).floor().clamp(0, 15)
    expected = torch.where(x < left, 0, torch.where(x >= right, 1, (2 * index + 1) / 0.375))
    assert torch.equal(slope, expected.to(dtype))
