"""The numbers of the inference forms (section 4.3), computed in float64 from a PWLU's parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..module import PWLU
from ..reference import has_inside
from .folded import FoldedPWLU
from .hinges import HingePWLU, fit_hinges
from .scaled_hinges import ScaledHingePWLU, fit_scaled_hinges


class _Pieces(NamedTuple):
    """A function as `folded_reference` takes it, in float64 on the CPU."""

    left: Tensor
    interval: Tensor
    slopes: Tensor
    offsets: Tensor


def fold_to_table(module: PWLU, norm: _BatchNorm | None = None, *, exported: str = "table") -> FoldedPWLU:
    """Return the form of section 4.3 of `module`, or of `module` after an eval-mode `norm`.

    Raises:
        ValueError: a number is not finite, or too large for the parameters' dtype.
    """
    left, interval, slopes, offsets = (piece.to(module.points) for piece in _finite_pieces(module, norm))
    return FoldedPWLU(left, interval, slopes, offsets, _channel_dim(module, norm), exported)


def fold_to_hinges(
    module: PWLU, norm: _BatchNorm | None = None, *, max_error: float = 0.0
) -> tuple[HingePWLU, float]:
    """Return the same as sums of hinges, with the error of the knots that `max_error` lets it leave out.

    Raises:
        ValueError: a number is not finite, or too large for the parameters' dtype; or a function jumps.
    """
    fit = fit_hinges(*_finite_pieces(module, norm), max_error)
    slope, offset, *sides = (t.to(module.points) for t in (fit.slope, fit.offset, *fit.lower, *fit.upper))
    lower, upper = (sides[0], sides[1]), (sides[2], sides[3])
    return HingePWLU(slope, offset, lower, upper, _channel_dim(module, norm)), fit.error


def fold_to_fewest_tensors(
    module: PWLU, norm: _BatchNorm | None = None, *, max_error: float = 0.0
) -> tuple[HingePWLU | ScaledHingePWLU, float]:
    """Return the same with the hinges at the same places in all channels where that takes fewer tensors.

    Raises:
        ValueError: as `fold_to_hinges`.
    """
    hinges, error = fold_to_hinges(module, norm, max_error=max_error)
    dtype, channel_dim = module.points.dtype, _channel_dim(module, norm)
    scaled = fit_scaled_hinges(*_finite_pieces(module, norm), dtype, channel_dim)
    if scaled is None or _tensors(scaled) >= _tensors(hinges):
        return hinges, error
    return scaled, 0.0


def _tensors(form: HingePWLU | ScaledHingePWLU) -> int:
    """Return how many numbers a channel of a form has."""
    if isinstance(form, HingePWLU):
        return 2 + 2 * form.num_knots
    return 3 + form.offsets.shape[1] + form.num_knots


def _channel_dim(module: PWLU, norm: _BatchNorm | None) -> int:
    return module.channel_dim if norm is None else 1


def _finite_pieces(module: PWLU, norm: _BatchNorm | None) -> _Pieces:
    """Return the pieces of `module` after `norm`. Raises ValueError where its dtype cannot hold them."""
    dtype = module.points.dtype
    pieces = _pieces(module)
    if norm is not None:
        pieces = _after_affine(pieces, *_affine(norm), dtype)
    if not all(t.to(dtype).isfinite().all() for t in pieces) or not pieces.interval.to(dtype).all():
        raise ValueError(
            f"its parameters, or an absorbed BatchNorm's, are not finite or too large for tables in {dtype}"
        )
    return pieces


@torch.no_grad()
def _pieces(module: PWLU) -> _Pieces:
    # Section 4.3. A column of the tables is the line of a known slope through a known point (anchor).
    is_open = has_inside((module.right - module.left) / module.num_intervals).cpu()[:, None]
    left, right, points, left_slope, right_slope = (
        parameter.detach().to("cpu", torch.float64).reshape(module.num_parameters, -1)
        for parameter in (module.left, module.right, module.points, module.left_slope, module.right_slope)
    )
    interval = torch.where(is_open, (right - left) / module.num_intervals, 1)
    knots = left + torch.arange(module.num_intervals) * interval
    # A function that is not open has its right tail in every column but the first.
    slopes = torch.where(is_open, points.diff() / interval, right_slope)
    slopes = torch.cat([left_slope, slopes, right_slope], 1)
    anchor_x = torch.cat([left, torch.where(is_open, knots, right), right], 1)
    anchor_y = torch.cat(
        [points[:, :1], torch.where(is_open, points[:, :-1], points[:, -1:]), points[:, -1:]], 1
    )
    return _Pieces(left[:, 0], interval[:, 0], slopes, anchor_y - anchor_x * slopes)


@torch.no_grad()
def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return a and b of the a * x + b that `norm` is in eval mode, each of shape (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = (t.to("cpu", torch.float64) for t in (norm.running_mean, norm.running_var))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.to("cpu", torch.float64)
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.to("cpu", torch.float64)


def _after_affine(pieces: _Pieces, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> _Pieces:
    """Return x -> f(scale * x + shift), per channel; a negative scale gives a negative interval."""
    num_intervals = pieces.slopes.shape[1] - 2
    left, interval = (pieces.left - shift) / scale, pieces.interval / scale
    slopes, offsets = (table.expand(len(scale), -1) for table in (pieces.slopes, pieces.offsets))
    # Where the scale is 0, or so small that `dtype` cannot hold the boundaries, only one column is ever used:
    # the one of f(shift).
    is_constant = ~(left.to(dtype).isfinite() & interval.to(dtype).isfinite())
    position = ((shift - pieces.left) / pieces.interval).nan_to_num(0)  # a NaN stays in the other numbers
    column = 1 + position.floor().clamp(-1, num_intervals)
    column = torch.where(is_constant[:, None], column[:, None], torch.arange(num_intervals + 2)).long()
    slopes, offsets = slopes.gather(1, column), offsets.gather(1, column)
    return _Pieces(
        torch.where(is_constant, 0, left),
        torch.where(is_constant, 1, interval),
        slopes * scale[:, None],
        slopes * shift[:, None] + offsets,
    )
