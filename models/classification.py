"""Image classifiers: timm's networks with their activations replaced."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import timm
from torch import nn

from pwlu import ReplacementReport, replace_activations


def build_classifier(
    name: str, make: Callable[..., nn.Module], *, num_classes: int, input_size: Sequence[int]
) -> tuple[nn.Module, ReplacementReport]:
    """Build timm's network `name` from scratch and put `make(num_channels)` at its activation sites.

    `make` is what `activation_factory` returns, `input_size` (channels, height, width), for which sites are
    chosen. Raises ValueError for an unknown name, a wrong number, and where there is nothing to replace.
    """
    # The sites are the same whatever `make` is, so that the rows of Table 2 differ in nothing else.
    check_timm_name(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected >= 1")
    if len(input_size) != 3:
        raise ValueError(f"input_size is {tuple(input_size)}, expected (channels, height, width)")
    model = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=input_size[0])
    return model, replace_activations(model, input_size=tuple(input_size), make=make)


def check_timm_name(name: str) -> None:
    """Raise ValueError with the nearest names if timm has no model `name`."""
    if not timm.is_model(name):
        # Not all names: timm has more than a thousand.
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"model name is {name!r}, which timm {timm.__version__} does not have{hint}")
