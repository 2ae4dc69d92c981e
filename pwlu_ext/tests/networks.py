"""Small networks with PWLUs for the tests."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from pwlu import PWLU, ReplacementReport, replace_activations


def conv_net(*activations: nn.Module) -> nn.Sequential:
    """Convolutions of 3 -> 4 -> 5 -> ... channels, each followed by one of the activations."""
    layers = [(nn.Conv2d(i + 3, i + 4, 1), act) for i, act in enumerate(activations)]
    return nn.Sequential(*(module for pair in layers for module in pair))


def small(model: nn.Module, **options: Any) -> ReplacementReport:
    """`replace_activations` for inputs of shape (3, 6, 7)."""
    return replace_activations(model, input_size=(3, 6, 7), **options)


class Hiding(nn.Module):
    """Two PWLUs, one of them in a list of Python's, where `fold` does not find it."""

    def __init__(self) -> None:
        super().__init__()
        self.act = PWLU(3)
        self.hidden = [PWLU(3).requires_grad_(False)]

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](self.act(x))


def bent_network(name: str, size: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """timm's network `name`, always the same one, whose PWLUs are no ReLU any more."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5)
    replace_activations(model, input_size=size)
    with torch.no_grad():
        for site in pwlus(model):
            site.points += 0.1 * torch.randn_like(site.points)
    return model


def pwlus(model: nn.Module) -> list[PWLU]:
    """Every PWLU of a model."""
    return [module for module in model.modules() if isinstance(module, PWLU)]
