"""PWLU as a line and a sum of hinges: for compilers that fuse chains of operations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import broadcast_shape, check_arguments
from ..layer import Layer

_JUMP = 1e-6  # of a function's size: what its tables may differ by at a knot
_ROUNDING = 1e-12  # the same, of numbers computed in float64


class HingePWLU(Layer):
    """A PWLU for inference as y = S x + O + sum over knots of b max(0, x - B), made by `pwlu.fold`.

    S and O are those of a piece in the middle; for the knots left of it the hinge is max(0, B - x). So few
    terms count near the middle, and they cancel little. The results differ from the PWLU's by up to
    4 (knots + 2) eps times the largest of |S x|, |O| and the sum of |b| |x - B|, eps = 1.2e-7 (2.2e-16 for
    float64), and where `fold` left out knots by what it reports. An infinite x may give NaN.

    The buffers stay float32 under ``.half()`` and ``.bfloat16()``; inputs (N, C, *) may be of those dtypes.

    Args:
        slope: S, shape (G,), float32 or float64; G is 1 or C.
        offset: O, shape (G,).
        lower: the knots left of the piece, shape (G, number), with the changes of slope there, lower_bends.
        upper: those right of it, with upper_bends.
        channel_dim: the dimension of the input that holds the channels; ignored if G is 1.
    """

    slope: Tensor
    offset: Tensor
    lower: Tensor
    lower_bends: Tensor
    upper: Tensor
    upper_bends: Tensor

    def __init__(
        self,
        slope: Tensor,
        offset: Tensor,
        lower: tuple[Tensor, Tensor],
        upper: tuple[Tensor, Tensor],
        channel_dim: int = 1,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)
        for name, (knots, bends) in (("lower", lower), ("upper", upper)):
            self.register_buffer(name, knots)
            self.register_buffer(f"{name}_bends", bends)

    @property
    def num_knots(self) -> int:
        """How many hinges an element costs."""
        return self.lower.shape[1] + self.upper.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        vectors = {"slope": self.slope, "offset": self.offset}
        check_arguments(x, {"lower": self.lower}, vectors, self.channel_dim, more_columns=-1)
        dtype, x = x.dtype, x.to(self.slope.dtype)
        shape = broadcast_shape(x, len(self.slope), self.channel_dim)
        y = x * self.slope.reshape(shape) + self.offset.reshape(shape)
        for knot, bend in zip(self.lower.unbind(1), self.lower_bends.unbind(1), strict=True):
            y = y + bend.reshape(shape) * torch.relu(knot.reshape(shape) - x)
        for knot, bend in zip(self.upper.unbind(1), self.upper_bends.unbind(1), strict=True):
            y = y + bend.reshape(shape) * torch.relu(x - knot.reshape(shape))
        return y.to(dtype)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{len(self.slope)}, num_knots={self.num_knots}, channel_dim={self.channel_dim}"


class Fit(NamedTuple):
    """A function as `HingePWLU` takes it, in float64, and how far it is from the one that it was made of."""

    slope: Tensor
    offset: Tensor
    lower: tuple[Tensor, Tensor]
    upper: tuple[Tensor, Tensor]
    error: float


def fit_hinges(left: Tensor, interval: Tensor, slopes: Tensor, offsets: Tensor, max_error: float) -> Fit:
    """Return functions as sums of hinges, with the fewest knots that keep them within `max_error`.

    Arguments are the tables of `folded_reference`, float64, finite. Knots that are left stay where they are,
    the first and the last among them, and with those the tails.

    Raises:
        ValueError: a function jumps, as one with collapsed boundaries does.
    """
    left, interval, slopes, offsets = ascending(left, interval, slopes, offsets)
    knots = left[:, None] + torch.arange(slopes.shape[1] - 1) * interval[:, None]
    values, others = knots * slopes[:, 1:] + offsets[:, 1:], knots * slopes[:, :-1] + offsets[:, :-1]
    size = (knots.abs() * slopes.abs().amax(1, keepdim=True) + offsets.abs().amax(1, keepdim=True)).amax(1)
    jumps = (values - others).abs() > _JUMP * size[:, None]
    if jumps.any():
        raise ValueError(
            f"it jumps at {knots[jumps][0]:.6g}, as a sum of hinges cannot; use form='table', or left < right"
        )
    kept, errors = _fewest_knots(knots, values, max_error + _ROUNDING * size)
    rows = (knots.tolist(), values.tolist(), slopes.tolist(), kept.tolist())
    lines, lower, upper = zip(*(_bends(*row) for row in zip(*rows, strict=True)), strict=True)
    slope, offset = torch.tensor(lines, dtype=torch.float64).unbind(1)
    return Fit(slope, offset, _padded(lower), _padded(upper), errors.max().item())


def ascending(
    left: Tensor, interval: Tensor, slopes: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same tables with intervals > 0; behind a BatchNorm of negative scale they are negative."""
    turned = interval < 0
    left = torch.where(turned, left + (slopes.shape[1] - 2) * interval, left)
    slopes, offsets = (torch.where(turned[:, None], table.flip(1), table) for table in (slopes, offsets))
    return left, interval.abs(), slopes, offsets


def _fewest_knots(knots: Tensor, values: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Return which knots to keep, (G, K), and the distance of lines between those from `values`, (G,)."""
    functions, count = knots.shape
    steps = torch.zeros(functions, count)  # fewest pieces from the first knot to each
    errors = torch.zeros_like(knots)
    before = torch.zeros(functions, count, dtype=torch.long)
    for end in range(1, count):
        gaps = torch.stack([_gap(knots, values, start, end) for start in range(end)], dim=1)
        allowed = steps[:, :end].masked_fill(gaps > tolerance[:, None], torch.inf)
        fewest, before[:, end] = allowed.min(1)
        steps[:, end] = fewest + 1
        gap = gaps.gather(1, before[:, end : end + 1])[:, 0]
        errors[:, end] = torch.maximum(errors.gather(1, before[:, end : end + 1])[:, 0], gap)
    kept = torch.zeros(functions, count, dtype=torch.bool)
    place = torch.full((functions, 1), count - 1)
    for _ in range(count):
        kept.scatter_(1, place, True)
        place = before.gather(1, place)
    return kept, errors[:, -1]


def _gap(knots: Tensor, values: Tensor, start: int, end: int) -> Tensor:
    """Return how far a line from one knot to another is from the values between them, (G,)."""
    if end == start + 1:
        return torch.zeros(len(knots), dtype=knots.dtype)
    share = (knots[:, start + 1 : end] - knots[:, start, None]) / (knots[:, end] - knots[:, start])[:, None]
    line = values[:, start, None] + share * (values[:, end] - values[:, start])[:, None]
    return (line - values[:, start + 1 : end]).abs().amax(1)


_Bends = list[tuple[float, float]]  # knot, change of slope


def _bends(
    knots: Sequence[float], values: Sequence[float], slopes: Sequence[float], kept: Sequence[bool]
) -> tuple[tuple[float, float], _Bends, _Bends]:
    """Return (slope, offset) of a function's middle piece, and the bends below and above it."""
    points = [(x, y) for x, y, stays in zip(knots, values, kept, strict=True) if stays]
    inner = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(points)]
    pieces = [slopes[0], *inner, slopes[-1]]
    least = _ROUNDING * max(map(abs, pieces))
    bends = [place for place, (one, other) in enumerate(pairwise(pieces)) if abs(other - one) > least]
    middle = len(bends) // 2
    piece = bends[middle] if bends else 0  # the one that ends with this knot
    slope, (x, y) = pieces[piece], points[piece]
    found = [(points[place][0], pieces[place + 1] - pieces[place]) for place in bends]
    return (slope, y - slope * x), found[:middle], found[middle:]


def _padded(functions: Sequence[_Bends]) -> tuple[Tensor, Tensor]:
    """Return knots and bends, each (G, most), filled up with bends of 0."""
    most = max(map(len, functions))
    filled = [[*bends, *[(0.0, 0.0)] * (most - len(bends))] for bends in functions]
    knots, bends = torch.tensor(filled, dtype=torch.float64).reshape(len(functions), most, 2).unbind(2)
    return knots, bends
