"""The optimizer: which parameter gets which weight decay and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

import pwlu
from engine.bounds import BelowOne, NonNegativeFloat, PositiveFloat
from engine.errors import UserError


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
    train_only: Literal["all", "activation"] = "all"  # activation: all else stays, normalisation too
    clip_grad_norm: NonNegativeFloat = 0.0  # greatest gradient norm; 0 switches clipping off
    ema_decay: BelowOne = 0.0  # of the averaged weights; 0 switches averaging off


class NothingLearns(UserError, ValueError):
    """The options leave no parameter to learn."""


def build_sgd(
    model: nn.Module, options: OptimizerOptions, is_activation: Callable[[nn.Module], bool]
) -> torch.optim.SGD:
    """Return SGD over `parameter_groups`, with learning rate 0 until the schedule sets one."""
    groups = parameter_groups(model, options, is_activation)
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov)


def parameter_groups(
    model: nn.Module, options: OptimizerOptions, is_activation: Callable[[nn.Module], bool]
) -> list[dict[str, Any]]:
    """Return `pwlu.parameter_groups` that learn, each with its decay and `lr_multiplier` on the schedule.

    Raises NothingLearns for `train_only=activation` in a model whose activations have no parameters.
    """
    decay_and_multiplier = {
        "weights": (options.weight_decay, 1.0),
        "norm_and_bias": (options.norm_and_bias_weight_decay, 1.0),
        "activation": (options.activation_weight_decay, options.activation_lr_multiplier),
    }
    groups = pwlu.parameter_groups(model, weight_decay=options.weight_decay, is_activation=is_activation)
    if options.train_only == "activation":
        groups = [group for group in groups if group["name"] == "activation"]
        if not groups:
            raise NothingLearns(
                "optimizer.train_only=activation: no activation of this network has parameters; take one "
                "that has, e.g. activation.name=pwlu"
            )
    for group in groups:
        group["weight_decay"], group["lr_multiplier"] = decay_and_multiplier[group["name"]]
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's learning rate times the group's own `lr_multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
