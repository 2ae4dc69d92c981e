"""Which parameter gets which weight decay and learning rate: groups by the kind of module.

Grouping by the number of dimensions would decay PWLU's `points`, a matrix, but not its boundaries and slopes,
vectors.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

_NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def parameter_groups(
    model: nn.Module,
    *,
    is_activation: Callable[[nn.Module], bool],
    weight_decay: float,
    norm_and_bias_weight_decay: float,
    activation_weight_decay: float,
    activation_lr_multiplier: float,
) -> list[dict[str, Any]]:
    """Sort every parameter of the model into one of three groups; empty groups are left out.

    * `activation`: everything inside a module for which `is_activation` is true (FReLU's convolution too);
    * `norm_and_bias`: normalisation layers' parameters, biases, other scales with fewer than two dimensions;
    * `weights`: the rest, the convolutions' and linear layers' weights.

    Each group carries its `name`, its `weight_decay` and its `lr_multiplier` on the schedule's learning rate.
    """
    members: dict[str, list[nn.Parameter]] = {"weights": [], "norm_and_bias": [], "activation": []}
    seen: set[nn.Parameter] = set()
    for kind, parameter in _sorted_parameters(model, is_activation, inside_activation=False):
        if parameter not in seen:
            members[kind].append(parameter)
            seen.add(parameter)
    decay = {
        "weights": weight_decay,
        "norm_and_bias": norm_and_bias_weight_decay,
        "activation": activation_weight_decay,
    }
    multiplier = {"weights": 1.0, "norm_and_bias": 1.0, "activation": activation_lr_multiplier}
    return [
        {"name": kind, "params": params, "weight_decay": decay[kind], "lr_multiplier": multiplier[kind]}
        for kind, params in members.items()
        if params
    ]


def build_sgd(
    model: nn.Module,
    *,
    is_activation: Callable[[nn.Module], bool],
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    norm_and_bias_weight_decay: float,
    activation_weight_decay: float,
    activation_lr_multiplier: float,
) -> torch.optim.SGD:
    """Return SGD over `parameter_groups`, with learning rate 0 until the schedule sets one."""
    groups = parameter_groups(
        model,
        is_activation=is_activation,
        weight_decay=weight_decay,
        norm_and_bias_weight_decay=norm_and_bias_weight_decay,
        activation_weight_decay=activation_weight_decay,
        activation_lr_multiplier=activation_lr_multiplier,
    )
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's learning rate times the group's own `lr_multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]


def _sorted_parameters(
    module: nn.Module, is_activation: Callable[[nn.Module], bool], inside_activation: bool
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (group name, parameter), activations before their children, in the order of registration."""
    inside_activation = inside_activation or is_activation(module)
    for name, parameter in module.named_parameters(recurse=False):
        yield _kind(module, name, parameter, inside_activation), parameter
    for child in module.children():
        yield from _sorted_parameters(child, is_activation, inside_activation)


def _kind(module: nn.Module, name: str, parameter: nn.Parameter, inside_activation: bool) -> str:
    if inside_activation:
        return "activation"
    if isinstance(module, _NORMALIZATIONS) or name.endswith("bias") or parameter.ndim < 2:
        return "norm_and_bias"
    return "weights"
