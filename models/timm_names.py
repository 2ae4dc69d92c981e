"""One check for every network that is taken from timm."""

from difflib import get_close_matches

import timm


def check_timm_name(name: str) -> None:
    """Raise a ValueError with the nearest names if timm has no model `name`."""
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"model name is {name!r}, which timm {timm.__version__} does not have{hint}")
