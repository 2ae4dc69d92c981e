"""The new module of a site: what `make` returns, checked, in the state of what it replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..module import PWLU
from .sites import Slot


def new_module(slot: Slot, make: Callable[..., nn.Module], start: dict[str, Any]) -> nn.Module:
    """Return `make(num_channels)`, called with channel_dim where it is not 1, and with `start`."""
    call = slot.calls[0]
    options = ({} if call.channel_dim == 1 else {"channel_dim": call.channel_dim}) | start
    module = _made(slot, make, options)
    flagged: Any = module
    # Only the model's author knows whether the site's input is read again.
    if isinstance(getattr(flagged, "inplace", None), bool):
        flagged.inplace = bool(getattr(slot.module, "inplace", False))
    # float32 parameters serve inputs of lower precision.
    dtype = torch.float64 if call.dtype == torch.float64 else None
    module = module.to(device=call.device, dtype=dtype).train(slot.module.training)
    if dtype is not None and isinstance(module, PWLU) and start:
        if module.init_slope is not None:
            module.init_slope.copy_(start["init_slope"])
        module.reset_parameters()  # it was made in float32
    return module


def _made(slot: Slot, make: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    num_channels = slot.calls[0].num_channels
    shown = {name: "..." if isinstance(value, Tensor) else repr(value) for name, value in options.items()}
    arguments = ", ".join([str(num_channels), *(f"{name}={value}" for name, value in shown.items())])
    call = f"make({arguments}), as site {slot.name!r} needs it,"
    try:
        module = make(num_channels, **options)
    except TypeError as error:
        raise ValueError(
            f"{call} failed with TypeError: {error}; expected make(num_channels), with a channel_dim keyword "
            f"where the channels are not in dimension 1, and with keywords init and init_slope for `init`"
        ) from error
    except ValueError as error:
        slopes = options.get("init_slope")
        if not isinstance(slopes, Tensor) or len(slopes) == 1:
            raise
        raise ValueError(
            f"{call} failed: {error} {type(slot.module).__name__} has {len(slopes)} different slopes there, "
            f"so `make` must return a channel-wise PWLU"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"make({num_channels}) returned {type(module).__name__}, expected an nn.Module")
    if isinstance(module, PWLU) and not _is_started(module, **options):
        raise ValueError(
            f"{call} returned a PWLU that starts as {module.starts_as}: `make` must hand these on to it"
        )
    return module


def _is_started(module: PWLU, init: Any = None, init_slope: Any = None, **other: Any) -> bool:
    """Return whether `module` starts as `make` was told."""
    start = module.starting
    if isinstance(init_slope, Tensor):
        return module.init_slope is not None
    is_same = init is None or init in (start.name, start, start.function)
    return is_same and init_slope in (None, start.left_slope)
