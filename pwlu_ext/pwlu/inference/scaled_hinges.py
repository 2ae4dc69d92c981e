"""PWLU as a line and a sum of hinges at the same places in all channels: for OpenVINO."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import broadcast_shape, check_arguments
from ..layer import Layer
from .hinges import ascending

# OpenVINO computes a chain of element-wise operations in one pass over memory, as long as that takes at most
# 11 tensors; numbers that all channels share do not count. The first pass takes u, y and 9 more, any other
# one also what the one before it made. A new pass begins with the first operation that has a tensor too many.
# If that adds a hinge, the hinge itself is left over as one more pass: so it has to be that of an offset.
_FIRST_HINGES, _MORE_HINGES = 8, 7  # beside the slope in the first pass, and an offset in any other one
_ROUNDING = 1e-12  # of a function's steepest slope, in float64


class ScaledHingePWLU(Layer):
    """A PWLU for inference as y = S u + O + sum over knots of b max(u, k), where u is x scale + shift.

    `pwlu.fold` makes it. The knots of a PWLU are equidistant: in units of their distance, and counted from
    one in the middle, k is the same integer in all channels. S is the slope left of that one; for k < 0 the
    hinge is min(u, k). The results differ from the PWLU's by up to 4 (knots + 3) eps times the sum of |S| d,
    of every |b| (d + |k|) and of the offsets' sizes, with d = |x scale| + |shift| and eps = 1.2e-7 (2.2e-16
    for float64). An infinite x may give NaN.

    The buffers stay float32 under ``.half()`` and ``.bfloat16()``; inputs (N, C, *) may be of those dtypes.

    Args:
        scale: shape (G,), float32 or float64; G is 1 or C.
        shift: shape (G,).
        slope: S, shape (G,).
        offsets: parts of O, each added after some of the hinges, shape (G, len(offset_places(K))).
        knots: k, ascending, shape (K,), of which K // 2 are negative.
        bends: b, shape (G, K).
        channel_dim: the dimension of the input that holds the channels; ignored if G is 1.
    """

    scale: Tensor
    shift: Tensor
    slope: Tensor
    offsets: Tensor
    knots: Tensor
    bends: Tensor

    def __init__(
        self,
        scale: Tensor,
        shift: Tensor,
        slope: Tensor,
        offsets: Tensor,
        knots: Tensor,
        bends: Tensor,
        channel_dim: int = 1,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("slope", slope)
        self.register_buffer("offsets", offsets)
        self.register_buffer("knots", knots)
        self.register_buffer("bends", bends)

    @property
    def num_knots(self) -> int:
        """How many hinges an element costs."""
        return len(self.knots)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        vectors = {"scale": self.scale, "shift": self.shift, "slope": self.slope}
        check_arguments(x, {"bends": self.bends}, vectors, self.channel_dim, more_columns=-1)
        dtype, x = x.dtype, x.to(self.slope.dtype)
        shape = broadcast_shape(x, len(self.slope), self.channel_dim)
        u = x * self.scale.reshape(shape) + self.shift.reshape(shape)
        y = u * self.slope.reshape(shape)
        bends, parts = (table.t().reshape(-1, *shape).unbind() for table in (self.bends, self.offsets))
        offsets = dict(zip(offset_places(self.num_knots), parts, strict=True))
        for place, (knot, bend) in enumerate(zip(self.knots.unbind(), bends, strict=True)):
            # torch.clamp would become two operations in ONNX.
            hinge = torch.minimum(u, knot) if place < self.num_knots // 2 else torch.maximum(u, knot)
            y = y + bend * hinge
            if place in offsets:
                y = y + offsets[place]
        return y.to(dtype)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{len(self.slope)}, num_knots={self.num_knots}, channel_dim={self.channel_dim}"


def fit_scaled_hinges(
    left: Tensor, interval: Tensor, slopes: Tensor, offsets: Tensor, dtype: torch.dtype, channel_dim: int
) -> ScaledHingePWLU | None:
    """Return functions as one module, or None where `dtype` cannot hold its numbers or nothing is bent.

    Arguments are the tables of `folded_reference`, float64, finite, of functions that do not jump. Knots
    where none of them is bent are left out.
    """
    left, interval, slopes, offsets = ascending(left, interval, slopes, offsets)
    bends = slopes.diff(dim=1)
    is_bent = (bends.abs() > _ROUNDING * slopes.abs().amax(1, keepdim=True)).any(0)
    places = is_bent.nonzero()[:, 0]
    if not len(places):
        return None
    center = places[len(places) // 2]
    slope, offset = slopes[:, center], offsets[:, center] + slopes[:, center] * (left + center * interval)
    knots = (places - center).to(bends.dtype)
    bends = torch.where(knots < 0, -1, 1) * bends[:, places] * interval[:, None]
    parts = _offset_parts(offset, bends * knots)
    scale, shift, slope, parts, knots, bends = (
        number.to(dtype)
        for number in (1 / interval, -left / interval - center, slope * interval, parts, knots, bends)
    )
    if not all(number.isfinite().all() for number in (scale, shift, slope, parts, bends)):
        return None
    return ScaledHingePWLU(scale, shift, slope, parts, knots, bends, channel_dim)


def offset_places(num_knots: int) -> list[int]:
    """Return after which hinges an offset is added: it begins the next pass, or ends the only one."""
    places = list(range(_FIRST_HINGES - 1, num_knots - 1, _MORE_HINGES))
    return places or [num_knots - 1]


def _offset_parts(offset: Tensor, hinges: Tensor) -> Tensor:
    """Return the parts of the offset, (G, number), that is `offset` (G,) less the `hinges` (G, K) at u = 0.

    A part takes away the hinges before it, so that what has been added up until then is 0 at u = 0.
    """
    places = offset_places(hinges.shape[1])
    groups = hinges.tensor_split([place + 1 for place in places], dim=1)
    parts = -torch.stack([group.sum(1) for group in groups], 1)
    return torch.cat([parts[:, :-2], (parts[:, -2:].sum(1) + offset)[:, None]], 1)
