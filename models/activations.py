"""The activations of the paper's Table 2 and LeakyReLU, by name. A new one is a line of `ACTIVATIONS`."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from pwlu import PWLU, ReplacementReport, replace_activations
from pwlu.suggestion import expected_one_of

from .apl import APL
from .frelu import FReLU
from .pau import PAU

MODES = ("channel", "layer")


def _relu(num_channels: int, channel_dim: int = 1) -> nn.Module:
    return nn.ReLU()


def _swish(num_channels: int, channel_dim: int = 1) -> nn.Module:
    # beta is fixed at 1: the paper counts Swish among those of "fixed (or nearly fixed) shape".
    return nn.SiLU()


def _leaky_relu(num_channels: int, channel_dim: int = 1) -> nn.Module:
    # Where PReLU starts, without learning: the control for a PWLU that starts there too.
    return nn.LeakyReLU(0.25)


def _pau(num_channels: int, channel_dim: int = 1) -> nn.Module:
    return PAU()


# What makes the module of a site from its number of channels; it gets `channel_dim`, the dimension that holds
# them, if it takes that.
ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": _relu,
    "swish": _swish,
    "prelu": nn.PReLU,
    "apl": APL,
    "pau": _pau,
    "frelu": FReLU,
    "pwlu": PWLU,
    "leaky_relu": _leaky_relu,
}
ORIGINAL = "original"  # the name for a network's own activations
REPLACED = "replaced"  # the start of a PWLU as what was there: an argument of `put_activations`
LEARNED = (nn.PReLU, APL, PAU, FReLU, PWLU)  # those with parameters


def activation_factory(
    name: str,
    *,
    num_intervals: int = 16,
    mode: str = "channel",
    bound: float = 3.0,
    init: str = "relu",
    init_slope: float = 0.25,
) -> Callable[..., nn.Module] | None:
    """Return the `make` that `pwlu.replace_activations` calls with the channel count of every site.

    `name` is one of `ACTIVATIONS`, or `ORIGINAL`, for which there is none; the rest is for PWLU alone: the
    paper's N, one function per "channel" or per "layer", where its boundaries start, and its starting
    function (`init_slope` is that of "leaky_relu"; "replaced" is left to `replace_activations`). Raises
    ValueError for an unknown name, mode or start.
    """
    if name == ORIGINAL:
        return None
    if name not in ACTIVATIONS:
        raise ValueError(expected_one_of("activation name", name, [*ACTIVATIONS, ORIGINAL]))
    if mode not in MODES:
        raise ValueError(expected_one_of("activation mode", mode, MODES))
    if name != "pwlu":
        return ACTIVATIONS[name]
    start: dict[str, Any] = {} if init == REPLACED else {"init": init}
    if init == "leaky_relu":
        start["init_slope"] = init_slope
    make_pwlu: Callable[..., nn.Module] = partial(PWLU, num_intervals=num_intervals, bound=bound, **start)
    if mode == "channel":
        return make_pwlu
    return lambda num_channels, **options: make_pwlu(1, **options)


def put_activations(
    model: nn.Module, make: Callable[..., nn.Module] | None, **options: Any
) -> ReplacementReport:
    """Put `make(num_channels)` at the activation sites of `model`; where it is None all stay.

    Modules of `ACTIVATIONS` are sites too. `options` and errors are those of `pwlu.replace_activations`.
    """
    options |= {"is_activation": is_activation}
    if make is not None:
        return replace_activations(model, make=make, **options)
    report = replace_activations(copy.deepcopy(model), make=_relu, **options)
    sites = [
        dataclasses.replace(site, replaced=False, reason=site.reason or "the network's own")
        for site in report.sites
    ]
    return ReplacementReport(tuple(sites), report.parameters_before, report.parameters_before)


def is_activation(module: nn.Module) -> bool:
    """Return True for a module whose parameters (its submodules' too) belong to the activation."""
    return isinstance(module, LEARNED)
