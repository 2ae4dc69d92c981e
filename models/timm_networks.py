"""timm's networks by name, with its trained weights where they are asked for."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import timm
from torch import nn


def create_network(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
    """Build timm's network `name`, from scratch or with timm's trained weights.

    `options` are those of `timm.create_model`. Raises ValueError for an unknown name, and for weights that do
    not exist, cannot be fetched or do not fit.
    """
    check_timm_name(name)
    if not pretrained:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
        return network
    try:
        network = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # whatever the network and its libraries raise
        first_line = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"model.pretrained=true: timm's weights of {name} cannot be loaded ({type(error).__name__}: "
            f"{first_line}){_weights_of(name)}"
        ) from error
    return network


def check_timm_name(name: str) -> None:
    """Raise ValueError with the nearest names if timm has no model `name`."""
    if not timm.is_model(name):
        # Not all names: timm has more than a thousand.
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"model name is {name!r}, which timm {timm.__version__} does not have{hint}")


def _weights_of(name: str) -> str:
    tags: Sequence[str] = timm.list_pretrained(f"{name}.*") or timm.list_pretrained(name)
    if not tags:
        return "; timm has none for this name: leave model.pretrained=true out"
    return (
        "; without a connection to the internet, copy timm's cache of a machine that has one (HF_HOME, "
        "TORCH_HOME), or leave model.pretrained=true out"
    )
