"""What functions do with their arguments first: check them, and line them up with the channels of x."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def check_arguments(
    x: Tensor,
    tables: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    channel_dim: int,
    *,
    more_columns: int,
) -> None:
    """Raise ValueError for a wrong argument of a function that is given per channel by tables and vectors.

    Named `tables` are of shape (G, num_intervals + more_columns), named `vectors` of shape (G,); G is 1 or C.
    """
    if x.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"pwlu: `x` must be float64, float32, float16 or bfloat16, but is {x.dtype}.")
    shape = next(iter(tables.values())).shape
    for name, table in tables.items():
        if table.dim() != 2 or table.shape[0] < 1 or table.shape[1] <= more_columns:
            raise ValueError(
                f"pwlu: `{name}` must have shape (G, num_intervals + {more_columns}) with G >= 1 and "
                f"num_intervals >= 1, but has shape {tuple(table.shape)}."
            )
    groups = shape[0]
    for name, vector in vectors.items():
        _check_parameter(name, vector, x, (groups,))
    for name, table in tables.items():
        _check_parameter(name, table, x, tuple(shape))
    if groups == 1:
        return
    if not -x.dim() <= channel_dim < x.dim():
        raise ValueError(f"pwlu: `channel_dim` is {channel_dim}, but x has shape {tuple(x.shape)}.")
    if x.shape[channel_dim] != groups:
        raise ValueError(
            f"pwlu: x of shape {tuple(x.shape)} has {x.shape[channel_dim]} channels in dimension "
            f"{channel_dim}, but the parameters are for {groups}. Expected 1 or {x.shape[channel_dim]}."
        )


def _check_parameter(name: str, parameter: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    check_dtype(name, parameter, x)
    if parameter.device != x.device:
        raise ValueError(f"pwlu: `{name}` is on {parameter.device}, but x is on {x.device}.")
    if parameter.shape != shape:
        raise ValueError(f"pwlu: `{name}` must have shape {shape}, but has {tuple(parameter.shape)}.")


def check_dtype(name: str, parameter: Tensor, x: Tensor) -> None:
    """Raise ValueError for a parameter that is not float32, or float64 for a float64 x."""
    expected = torch.float64 if x.dtype == torch.float64 else torch.float32
    if parameter.dtype != expected:
        raise ValueError(f"pwlu: `{name}` must be {expected} for a {x.dtype} x, but is {parameter.dtype}.")


def broadcast_shape(x: Tensor, groups: int, channel_dim: int) -> list[int]:
    """Return the shape in which a vector of `groups` numbers broadcasts along the channels of x."""
    shape = [1] * x.dim()
    if groups > 1:
        shape[channel_dim] = groups
    return shape


def column_entries(table: Tensor, column: int, shape: list[int]) -> Tensor:
    """Return where every channel's entry of `column` is in the flattened (G, columns) table, in `shape`."""
    return torch.arange(column, table.numel(), table.shape[1], device=table.device).reshape(shape)


def zero_batch(model: nn.Module, input_size: Sequence[int]) -> Tensor:
    """Return a batch of one zero input of shape `input_size`, on the model's own device and dtype."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros((1, *input_size), device=first.device, dtype=first.dtype)
