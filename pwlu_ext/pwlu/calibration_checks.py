"""What `calibrate` refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from .module import PWLU
from .realignment import check_whole, is_at_start
from .remarks import find_sites, shown_names

_ALIKE = 1e-5  # relative: other processors compute starting functions to other last bits


def unwrapped(model: Any) -> nn.Module:
    """Return the model that torch.compile, DataParallel or DistributedDataParallel wraps."""
    # DistributedDataParallel's forward waits for the other processes, which may have fewer batches.
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # of torch.compile
            model = model._orig_mod
        elif isinstance(model, nn.Module):
            return model
        else:
            raise ValueError(f"`model` must be an nn.Module, but is a {type(model).__name__}")


def checked_sites(model: nn.Module) -> dict[str, PWLU]:
    """Return the PWLUs of a model by name; ValueError if it has none, or one cannot be calibrated."""
    sites = find_sites(model)
    if not sites:
        raise ValueError(
            f"nothing to calibrate: {type(model).__name__} has no PWLU; first put PWLUs into it by "
            'pwlu.replace_activations(model, init="replaced")'
        )
    check_whole(sites)
    in_phase_1 = [name for name, site in sites.items() if site.statistics is not None]
    if in_phase_1:
        raise ValueError(
            f"PWLU {shown_names(in_phase_1)}: in phase I of a TwoPhaseLearning, which collects statistics "
            "itself; calibrate takes its place"
        )
    learned = [name for name, site in sites.items() if not is_at_start(site, _ALIKE)]
    if learned:
        raise ValueError(
            f"PWLU {shown_names(learned)}: has learned: it is not its starting function any more. "
            "calibrate would throw that away; do it before training, or first reset_parameters() of that PWLU"
        )
    return sites


def check_arguments(batches: Any, forward: Any) -> None:
    """Raise ValueError for what yields no batches, and for a `forward` that cannot be called."""
    if forward is not None and not callable(forward):
        raise ValueError(f"`forward` must be a callable of the model and a batch, but is {forward!r}")
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise ValueError("`batches` is a data set, which yields single samples: give a DataLoader of it")
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise ValueError(
            f"`batches` must be an iterable of batches, e.g. a DataLoader or [x], but is a "
            f"{type(batches).__name__}"
        )
