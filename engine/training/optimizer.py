"""The optimizer: which parameter gets which weight decay and learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov, fused=True)


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


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load a checkpoint's state; how the steps are computed, `fused` or not, stays as it is."""
    groups = zip(saved["param_groups"], optimizer.param_groups, strict=True)
    optimizer.load_state_dict(
        {**saved, "param_groups": [{**old, "fused": own["fused"]} for old, own in groups]}
    )
    for parameter, state in optimizer.state.items():
        # The fused step goes through memory as it lies, and runtime.channels_last may have changed.
        if isinstance(buffer := state.get("momentum_buffer"), Tensor):
            state["momentum_buffer"] = torch.empty_like(parameter, dtype=buffer.dtype).copy_(buffer)


def step_unless(skip: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Take a step of fused SGD by way of the scaler; it changes nothing where `skip` is 1.

    skip: float32, shape (), on the parameters' device. It, and whether a float16 gradient overflowed, is
    looked at there alone.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state
            if group["momentum"] and parameter.grad is not None and not state.get(parameter):
                # torch's own has no values yet after a first step that was skipped.
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def also_skip(optimizer: Any, *_: Any) -> None:
        overflowed = getattr(optimizer, "found_inf", None)
        optimizer.found_inf = skip if overflowed is None else torch.maximum(skip, overflowed)

    with optimizer.register_step_pre_hook(also_skip):
        scaler.step(optimizer)
    vars(optimizer).pop("found_inf", None)  # a scaler that is enabled has removed it


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's learning rate times the group's own `lr_multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
