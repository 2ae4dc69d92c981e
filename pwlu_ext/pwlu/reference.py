"""The specification of PWLU in plain PyTorch: differentiable, on any device, slow."""

import torch
from torch import Tensor

from .arguments import broadcast_shape, check_arguments, column_entries


def pwlu_reference(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    points: Tensor,
    left_slope: Tensor,
    right_slope: Tensor,
    *,
    channel_dim: int = 1,
) -> Tensor:
    """Evaluate the Piecewise Linear Unit (Eq. 1-4) with plain tensor operations.

    It defines what `pwlu.pwlu` computes, edge cases included. Autograd derives its gradients, which are
    those of Table 1 (the interval index is treated as a constant).

    A NaN gives NaN; an infinity follows its tail. Where right <= left no x is inside: the left tail serves
    x < left, the right one the rest. Arguments, result and errors are those of `pwlu.pwlu`.

    Raises:
        ValueError: an argument has a wrong dtype, shape or device; the message names it.
    """
    vectors = {"left": left, "right": right, "left_slope": left_slope, "right_slope": right_slope}
    check_arguments(x, {"points": points}, vectors, channel_dim, more_columns=1)
    num_intervals = points.shape[1] - 1
    input_dtype, x = x.dtype, x.to(points.dtype)

    # One function per channel: parameters become (G, 1, 1, ...) to broadcast along channel_dim.
    shape = broadcast_shape(x, points.shape[0], channel_dim)
    left, right, left_slope, right_slope = (p.reshape(shape) for p in (left, right, left_slope, right_slope))

    interval = (right - left) / num_intervals  # d
    is_open = has_inside(interval)
    below = x < left
    inside = ~below & (x < right) & is_open  # a NaN is neither, and takes the right tail

    # `where` on both sides of an operation keeps NaNs and infinities of masked elements out of the gradient.
    position = torch.where(inside, x - left, 0) / torch.where(is_open, interval, 1)
    index = position.detach().floor().clamp(0, num_intervals - 1)  # Eq. 2
    start, end = _look_up(points, index.long(), shape)
    y_inside = start + (position - index) * (end - start)

    y_below = _tail(torch.where(below, x - left, 0), left_slope) + points[:, 0].reshape(shape)
    y_above = _tail(torch.where(below | inside, 0, x - right), right_slope) + points[:, -1].reshape(shape)
    return torch.where(below, y_below, torch.where(inside, y_inside, y_above)).to(input_dtype)


def has_inside(interval: Tensor) -> Tensor:
    """Return where one can divide by an interval's width d; elsewhere a function has only its tails."""
    return (interval > 0) & interval.isfinite() & interval.reciprocal().isfinite()


def _tail(distance: Tensor, slope: Tensor) -> Tensor:
    """Return distance * slope, where an infinite distance on a flat tail gives 0 instead of NaN."""
    # The slope's gradient counts an infinite distance as the largest finite number: 0 * inf would be a NaN.
    infinite = distance.isinf()
    largest = torch.finfo(distance.dtype).max
    fixed = slope.detach()
    value = torch.where(infinite & (fixed != 0), distance, 0) * fixed
    slope_gradient = torch.where(infinite, distance.detach().clamp(-largest, largest), 0) * (slope - fixed)
    return torch.where(infinite, 0, distance) * slope + value + slope_gradient


def _look_up(points: Tensor, index: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    """Return the points at both ends of every element's interval, each with the shape of `index`."""
    flat = points.reshape(-1)
    return flat[column_entries(points, 0, shape) + index], flat[column_entries(points, 1, shape) + index]
