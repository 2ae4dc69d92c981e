"""The seven activations of the paper's Table 2, by name."""

from collections.abc import Callable

from torch import nn

from pwlu import PWLU
from pwlu.suggestion import expected_one_of

from .apl import APL
from .frelu import FReLU
from .pau import PAU

ACTIVATIONS: tuple[str, ...] = ("relu", "swish", "prelu", "apl", "pau", "frelu", "pwlu")
MODES = ("channel", "layer")


def activation_factory(
    name: str, *, num_intervals: int = 16, mode: str = "channel", bound: float = 3.0
) -> Callable[..., nn.Module]:
    """Return the `make` that `pwlu.replace_activations` calls with the channel count of every site.

    The settings are those of section 4.1. Swish is x * sigmoid(x) with beta fixed at 1 (`nn.SiLU`): the paper
    counts it among those of "fixed (or nearly fixed) shape", and it is the form that the literature compares
    with. PReLU has a slope per channel that starts at 0.25. For APL, PAU and FReLU see their modules.

    Args:
        name: one of `ACTIVATIONS`.
        num_intervals: of PWLU alone, the paper's N.
        mode: of PWLU alone, a function per "channel" or one per "layer".
        bound: of PWLU alone, its boundaries start at -bound and bound.

    Raises:
        ValueError: an unknown name or mode.
    """
    if mode not in MODES:
        raise ValueError(expected_one_of("activation mode", mode, MODES))

    def make_pwlu(num_channels: int, channel_dim: int = 1) -> nn.Module:
        num_parameters = num_channels if mode == "channel" else 1
        return PWLU(num_parameters, num_intervals=num_intervals, bound=bound, channel_dim=channel_dim)

    makers: dict[str, Callable[..., nn.Module]] = {
        "relu": _relu,
        "swish": _swish,
        "prelu": nn.PReLU,
        "apl": APL,
        "pau": _pau,
        "frelu": FReLU,
        "pwlu": make_pwlu,
    }
    if name not in makers:
        raise ValueError(expected_one_of("activation name", name, ACTIVATIONS))
    return makers[name]


def is_activation(module: nn.Module) -> bool:
    """Return True for a module whose parameters (its submodules' too) belong to the activation."""
    return isinstance(module, PWLU | nn.PReLU | APL | PAU | FReLU)


def _relu(num_channels: int, channel_dim: int = 1) -> nn.Module:
    return nn.ReLU()


def _swish(num_channels: int, channel_dim: int = 1) -> nn.Module:
    return nn.SiLU()


def _pau(num_channels: int, channel_dim: int = 1) -> nn.Module:
    return PAU()
