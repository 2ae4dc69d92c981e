"""PWLU in its inference form (section 4.3): one table look-up and one multiply-add."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..arguments import broadcast_shape, check_arguments, column_entries
from ..layer import Layer
from ..library import accept_any_layout, cuda_is_loaded
from ..ops import is_transformed

FOLDED = torch.ops.pwlu.folded.default
FOLDED_ = torch.ops.pwlu.folded_.default  # of a CPU, writes over x
accept_any_layout(FOLDED, FOLDED_)


def folded_reference(
    x: Tensor, left: Tensor, interval: Tensor, slopes: Tensor, offsets: Tensor, *, channel_dim: int = 1
) -> Tensor:
    """Compute y = x * S[i] + O[i] with i = clip(floor((x - left) / interval), -1, N), as in section 4.3.

    Plain tensor operations, which torch.export, the compilers and ONNX know; differentiable with respect to
    x, slopes and offsets. `left` and `interval`, which may be negative, have shape (G,); `slopes` and
    `offsets` (G, num_intervals + 2), where i = -1 is the first column. Dtypes and edge cases are those of
    `pwlu.pwlu`.

    Raises:
        ValueError: an argument has a wrong dtype, shape or device; the message names it.
    """
    tables, vectors = {"slopes": slopes, "offsets": offsets}, {"left": left, "interval": interval}
    check_arguments(x, tables, vectors, channel_dim, more_columns=2)
    num_intervals = slopes.shape[1] - 2
    input_dtype, x = x.dtype, x.to(slopes.dtype)
    shape = broadcast_shape(x, slopes.shape[0], channel_dim)
    position = ((x - left.reshape(shape)) / interval.reshape(shape)).floor()
    # No index is made from a NaN: it is whatever the hardware says. The right tail passes the NaN on.
    index = torch.where(position.isnan(), num_intervals, position.clamp(-1, num_intervals)).long()
    entry = column_entries(slopes, 1, shape) + index
    slope, offset = slopes.reshape(-1)[entry], offsets.reshape(-1)[entry]
    x = torch.where(x.isinf() & (slope == 0), 0, x)  # 0 * inf would be NaN
    return (x * slope + offset).to(input_dtype)


def folded(
    x: Tensor, left: Tensor, interval: Tensor, slopes: Tensor, offsets: Tensor, *, channel_dim: int = 1
) -> Tensor:
    """Compute `folded_reference`, by the compiled operator where x needs no gradient."""
    arguments = (x, left, interval, slopes, offsets)
    needs_gradient = torch.is_grad_enabled() and x.requires_grad
    # torch.export and torch.jit.trace record the plain operations, which need no library of ours.
    if torch.jit.is_tracing():
        with warnings.catch_warnings():
            # Python decides by ranks and by sizes of tables, which are constants of the trace.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return folded_reference(*arguments, channel_dim=channel_dim)
    if not _has_kernel(x) or needs_gradient or is_transformed() or torch.compiler.is_exporting():
        return folded_reference(*arguments, channel_dim=channel_dim)
    if torch.compiler.is_compiling():
        return _over_a_copy(*arguments, channel_dim)
    return FOLDED(*arguments, channel_dim)


def _over_a_copy(x: Tensor, *tables_and_channel_dim: Any) -> Tensor:
    # Inductor leaves the copy out where nothing else reads x. In a new tensor y would be a second pass over
    # memory, and a large one is memory that the system has to provide at every call.
    y = x.clone()
    FOLDED_(y, *tables_and_channel_dim)
    return y


def _has_kernel(x: Tensor) -> bool:
    if x.is_cuda:  # torch.compile makes one kernel of the plain operations and what is around them
        return cuda_is_loaded() and not torch.compiler.is_compiling()
    return x.is_cpu


torch.fx.wrap("folded")  # symbolic_trace takes the call as it is: what decides inside it is not known yet


@torch.library.register_fake("pwlu::folded")
def _folded_fake(x: Tensor, *tables_and_channel_dim: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("pwlu::folded_")
def _folded_in_place_fake(x: Tensor, *tables_and_channel_dim: Any) -> None:
    """Return nothing: x keeps its shape."""


@register_flop_formula(torch.ops.pwlu.folded)
def _folded_flops(x_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    # Per element: position (subtract, divide), value (multiply, add).
    return 4 * torch.Size(x_shape).numel()


class FoldedPWLU(Layer):
    """A PWLU for inference, made by `pwlu.fold`, with tables as buffers.

    Rounding: x * S + O cancels where the PWLU that it was made from interpolates between its points. The
    results differ by up to 4 eps * ((|x| + |left|) * max|S| + max|O|) of the channel, eps = 1.2e-7 (2.2e-16
    for float64); S is large where a narrow interval is steep.

    The buffers stay float32 under ``.half()`` and ``.bfloat16()``, and where a state dict of those dtypes is
    loaded; inputs (N, C, *) may be of those dtypes.

    Args:
        left: where the first interval begins, shape (G,), float32 or float64; G is 1 or C.
        interval: the width of an interval, shape (G,).
        slopes: S, shape (G, num_intervals + 2).
        offsets: O, the same shape.
        channel_dim: the dimension of the input that holds the channels; ignored if G is 1.
        exported: what an exported or traced model has in it: "table", plain operations; "operator",
            pwlu::folded; or "in_place", which on a CPU is pwlu::folded_ where torch.export records it.
    """

    left: Tensor
    interval: Tensor
    slopes: Tensor
    offsets: Tensor

    def __init__(
        self,
        left: Tensor,
        interval: Tensor,
        slopes: Tensor,
        offsets: Tensor,
        channel_dim: int = 1,
        exported: str = "table",
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.exported = exported
        self.register_buffer("left", left)
        self.register_buffer("interval", interval)
        self.register_buffer("slopes", slopes)
        self.register_buffer("offsets", offsets)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        tables = (self.left, self.interval, self.slopes, self.offsets)
        exporting = torch.compiler.is_exporting()
        if self.exported == "in_place" and exporting and x.is_cpu:
            return _over_a_copy(x, *tables, self.channel_dim)
        if self.exported != "table" and (exporting or torch.jit.is_tracing()):
            return FOLDED(x, *tables, self.channel_dim)
        return folded(x, *tables, channel_dim=self.channel_dim)

    def extra_repr(self) -> str:
        """Return the sizes, as `pwlu.PWLU` has them."""
        num_parameters, columns = self.slopes.shape
        return f"{num_parameters}, num_intervals={columns - 2}, channel_dim={self.channel_dim}"
