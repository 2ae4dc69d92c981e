"""The seven activations of the paper's Table 2, by name. A new one is a line of `ACTIVATIONS`."""

from collections.abc import Callable
from functools import partial

from torch import nn

from pwlu import PWLU
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
}
LEARNED = (nn.PReLU, APL, PAU, FReLU, PWLU)  # those with parameters


def activation_factory(
    name: str, *, num_intervals: int = 16, mode: str = "channel", bound: float = 3.0
) -> Callable[..., nn.Module]:
    """Return the `make` that `pwlu.replace_activations` calls with the channel count of every site.

    `name` is one of `ACTIVATIONS`; the rest is for PWLU alone: the paper's N, one function per "channel" or
    per "layer", and where its boundaries start. Raises ValueError for an unknown name or mode.
    """
    if name not in ACTIVATIONS:
        raise ValueError(expected_one_of("activation name", name, ACTIVATIONS))
    if mode not in MODES:
        raise ValueError(expected_one_of("activation mode", mode, MODES))
    if name != "pwlu":
        return ACTIVATIONS[name]
    make_pwlu = partial(PWLU, num_intervals=num_intervals, bound=bound)
    if mode == "channel":
        return make_pwlu
    return lambda num_channels, channel_dim=1: make_pwlu(1, channel_dim=channel_dim)


def is_activation(module: nn.Module) -> bool:
    """Return True for a module whose parameters (its submodules' too) belong to the activation."""
    return isinstance(module, LEARNED)
