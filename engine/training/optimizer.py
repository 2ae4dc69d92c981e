"""The optimizer: which parameter gets which weight decay and learning rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.bounds import BelowOne, NonNegativeFloat, PositiveFloat

_NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


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
    """Sort every parameter of the model into one of three groups; empty groups are left out.

    * `activation`: everything inside a module for which `is_activation` is true (FReLU's convolution too);
    * `norm_and_bias`: normalisation layers' parameters, biases, other scales with fewer than two dimensions;
    * `weights`: the rest, the convolutions' and linear layers' weights.

    Each group carries its `name`, its `weight_decay` and its `lr_multiplier` on the schedule's learning rate.
    """
    decay_and_multiplier = {
        "weights": (options.weight_decay, 1.0),
        "norm_and_bias": (options.norm_and_bias_weight_decay, 1.0),
        "activation": (options.activation_weight_decay, options.activation_lr_multiplier),
    }
    members: dict[str, dict[nn.Parameter, None]] = {name: {} for name in decay_and_multiplier}
    for name, parameter in _named_by_group(model, is_activation, inside_activation=False):
        if not any(parameter in group for group in members.values()):  # shared ones count once
            members[name][parameter] = None
    return [
        {"name": name, "params": list(members[name]), "weight_decay": decay, "lr_multiplier": multiplier}
        for name, (decay, multiplier) in decay_and_multiplier.items()
        if members[name]
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's learning rate times the group's own `lr_multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]


def _named_by_group(
    module: nn.Module, is_activation: Callable[[nn.Module], bool], inside_activation: bool
) -> Iterator[tuple[str, nn.Parameter]]:
    inside_activation = inside_activation or is_activation(module)
    for name, parameter in module.named_parameters(recurse=False):
        # By the kind of module: PWLU's `points` are a matrix as weights are, its boundaries are vectors.
        if inside_activation:
            group = "activation"
        elif isinstance(module, _NORMALIZATIONS) or name.endswith("bias") or parameter.ndim < 2:
            group = "norm_and_bias"
        else:
            group = "weights"
        yield group, parameter
    for child in module.children():
        yield from _named_by_group(child, is_activation, inside_activation)
