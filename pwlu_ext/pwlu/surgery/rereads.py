"""Activations in place whose input is read again: what reads it would find another value beside a PWLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..arguments import zero_batch
from ..evaluation import evaluation_mode
from ..starting import has_values
from .sites import Slot, own_modules

_ALIKE = 1e-3  # of the largest output; kernels that add in another order differ by less


def find_rereads(model: nn.Module, slots: list[Slot], input_size: tuple[int, ...]) -> set[Slot]:
    """Return the sites that change the outputs of `model` where they no longer work in place."""
    # As in `out = self.relu(x); ...; return out + x` of MiDaS's residual units, where x is relu(x) by then.
    x = zero_batch(model, input_size)
    in_place = [slot for slot in slots if _flagged(slot)]
    if not in_place or not has_values(x):
        return set()
    x += torch.linspace(0, 100, x.numel(), device=x.device).sin().reshape(x.shape)
    with own_modules(in_place), evaluation_mode(model), torch.no_grad():
        before = _outputs(model, x)
        if _alike(before, _outputs_without(in_place, model, x)):
            return set()
        return {slot for slot in in_place if not _alike(before, _outputs_without([slot], model, x))}


def _outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        outputs = tree_leaves(model(x.clone()))
    return [y.clone() for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]


def _outputs_without(chosen: list[Slot], model: nn.Module, x: Tensor) -> list[Tensor]:
    flagged = [module for slot in chosen for module in _flagged(slot)]
    for module in flagged:
        module.inplace = False
    outputs = _outputs(model, x)
    for module in flagged:
        module.inplace = True
    return outputs


def _flagged(slot: Slot) -> list[Any]:
    return [part for part in slot.module.modules() if getattr(part, "inplace", None) is True]


def _alike(before: list[Tensor], after: list[Tensor]) -> bool:
    return [y.shape for y in before] == [y.shape for y in after] and all(
        torch.allclose(
            old, new, rtol=0, atol=_ALIKE * float(old.abs().nan_to_num(0, 0).max()), equal_nan=True
        )
        for old, new in zip(before, after, strict=True)
        if old.numel()
    )
