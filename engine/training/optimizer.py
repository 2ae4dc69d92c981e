"""The optimizer: which parameter gets which weight decay and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import pwlu
from engine.bounds import BelowOne, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Stochastic gradient descent with momentum: a configuration's section `optimizer`."""

    peak_lr: PositiveFloat  # highest learning rate of the schedule, for the global batch
    weight_decay: NonNegativeFloat  # of convolution and linear weights
    momentum: BelowOne = 0.9  # of SGD
    nesterov: bool = False  # Nesterov's form of the momentum
    activation_weight_decay: NonNegativeFloat = 0.0  # of the activations' own parameters
    norm_and_bias_weight_decay: NonNegativeFloat = 0.0  # of normalisation parameters and biases
    activation_lr_multiplier: NonNegativeFloat = 1.0  # learning rate of the activations over the others'
    clip_grad_norm: NonNegativeFloat = 0.0  # greatest gradient norm; 0 switches clipping off
    ema_decay: BelowOne = 0.0  # of the averaged weights; 0 switches averaging off


def build_sgd(
    model: nn.Module, options: OptimizerOptions, is_activation: Callable[[nn.Module], bool]
) -> torch.optim.SGD:
    """Return SGD over `parameter_groups`, with learning rate 0 until the schedule sets one."""
    groups = parameter_groups(model, options, is_activation)
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov)


def parameter_groups(
    model: nn.Module, options: OptimizerOptions, is_activation: Callable[[nn.Module], bool]
) -> list[dict[str, Any]]:
    """Return `pwlu.parameter_groups`, each with the options' decay and `lr_multiplier` on the schedule."""
    decay_and_multiplier = {
        "weights": (options.weight_decay, 1.0),
        "norm_and_bias": (options.norm_and_bias_weight_decay, 1.0),
        "activation": (options.activation_weight_decay, options.activation_lr_multiplier),
    }
    groups = pwlu.parameter_groups(model, weight_decay=options.weight_decay, is_activation=is_activation)
    for group in groups:
        group["weight_decay"], group["lr_multiplier"] = decay_and_multiplier[group["name"]]
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's learning rate times the group's own `lr_multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
