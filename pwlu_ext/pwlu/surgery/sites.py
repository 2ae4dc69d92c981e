"""Activation sites: the places (`parent.attribute`) of a model that hold an elementwise activation module.

Gates (Sigmoid, Hardsigmoid, Tanh, Softmax ...) squash their input to weigh something else by it: no sites.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..module import PWLU

SITE_TYPES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus, PWLU),
)

# timm's own activation classes, by name: this package depends on torch alone and must not import timm.
TIMM_SITE_NAMES = frozenset(
    ("Swish", "SwishMe", "Mish", "MishMe", "HardSwish", "HardSwishMe", "HardMish", "HardMishMe")
    + ("GELU", "GELUTanh", "QuickGELU", "StarReLU", "SquaredReLU", "GammaAct")
)


@dataclass(frozen=True)
class Call:
    """What one call of an activation received; spatial_size leaves out batch and channels."""

    num_channels: int
    channel_dim: int
    spatial_size: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype


@dataclass(eq=False)
class Slot:
    """One site: its name, the module there, every (parent, attribute) that holds it, the measured calls."""

    name: str
    module: nn.Module
    holders: list[tuple[nn.Module, str]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def put(self, module: nn.Module) -> None:
        """Register `module` in every holder in place of what is there."""
        for parent, attribute in self.holders:
            setattr(parent, attribute, module)


def is_site_module(module: nn.Module) -> bool:
    """Return True for PWLU, torch's elementwise activations and timm's; False for gates and the rest."""
    if isinstance(module, SITE_TYPES):
        return True
    return type(module).__module__.startswith("timm.") and type(module).__name__ in TIMM_SITE_NAMES


def is_gate(module: nn.Module) -> bool:
    """Return True for activation modules that are no sites."""
    home = type(module).__module__
    return home.startswith("timm.layers.activations") or (
        home == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)
    )


def find_slots(model: nn.Module, is_site: Callable[[nn.Module], bool]) -> list[Slot]:
    """Return the sites of `model` in definition order; nothing inside a site is searched."""
    slots: dict[Any, Slot] = {}
    seen = {model}

    def visit(parent: nn.Module, prefix: str) -> None:
        for attribute, child in parent._modules.items():
            if child is None or isinstance(child, torch.jit.ScriptModule):
                continue  # compiled: nothing in it can be exchanged
            if is_site(child):
                # A module without parameters that is in several places was shared for convenience: it is a
                # site of its own in each. One with parameters is one tied site.
                tied = any(True for _ in child.parameters())
                slot = slots.setdefault(
                    child if tied else (parent, attribute), Slot(prefix + attribute, child)
                )
                slot.holders.append((parent, attribute))
            elif child not in seen:
                seen.add(child)
                visit(child, f"{prefix}{attribute}.")

    visit(model, "")
    return list(slots.values())


@contextmanager
def own_modules(slots: list[Slot]) -> Iterator[None]:
    """Give each slot a module object of its own while it is measured."""
    # So the calls of slots that share one can be told apart, and no call counts that reaches the activation
    # past the slot, e.g. through a plain list: it would not reach a new module either.
    found = [slot.module for slot in slots]
    for slot in slots:
        slot.module = copy.deepcopy(slot.module)
        slot.put(slot.module)
    try:
        yield
    finally:
        for slot, module in zip(slots, found, strict=True):
            slot.module = module
            slot.put(module)


def leave_fused_kernels(model: nn.Module) -> None:
    """Tell torch's encoder layers which activation they hold now."""
    # In eval mode they and nn.TransformerEncoder use fused kernels for what they held when they were built.
    for module in reversed([*model.modules()]):  # an encoder after its layers
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, nn.Module):
            is_relu, is_gelu = (isinstance(module.activation, kind) for kind in (nn.ReLU, nn.GELU))
            module.activation_relu_or_gelu = 1 if is_relu else 2 if is_gelu else 0
        if isinstance(module, nn.TransformerEncoder):
            fused = [getattr(layer, "activation_relu_or_gelu", 0) for layer in module.layers]
            module.use_nested_tensor = module.use_nested_tensor and all(fused)
