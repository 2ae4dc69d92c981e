"""Which parameters an optimizer lets decay: weights do, an activation's do not."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

from torch import nn

from .module import PWLU

_NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    is_activation: Callable[[nn.Module], bool] = lambda module: isinstance(module, PWLU),
) -> list[dict[str, Any]]:
    """Sort the parameters into up to three groups for an optimizer; only the first one decays.

    * `weights`: weights of convolutions, linear layers and the like;
    * `norm_and_bias`: parameters of normalisations, biases, other vectors and scalars, and those that a
      module's `no_weight_decay()` names (timm's models have it);
    * `activation`: everything inside a module for which `is_activation` is true: all of a PWLU, whose
      `points` are a matrix by their shape alone.

    Each group carries its `name` and `weight_decay`; the last two carry `use_fallback` too, by which timm's
    Muon gives them to its AdamW. Every parameter is in one group, once, also one that is shared or frozen.

    Raises:
        ValueError: weight_decay is no finite number >= 0.
    """
    if not isinstance(weight_decay, (int, float)) or not 0 <= weight_decay < float("inf"):
        raise ValueError(f"`weight_decay` must be a finite number >= 0, but is {weight_decay!r}.")
    members: dict[str, list[nn.Parameter]] = {"weights": [], "norm_and_bias": [], "activation": []}
    spared = set(_declared_without_decay(model))
    seen = set()
    for group, parameter in _by_group(model, is_activation, inside_activation=False):
        if parameter not in seen:
            seen.add(parameter)
            is_spared = group == "weights" and parameter in spared
            members["norm_and_bias" if is_spared else group].append(parameter)
    of_weights = {"weight_decay": weight_decay}
    of_others = {"weight_decay": 0.0, "use_fallback": True}
    return [
        {"name": name, "params": params, **(of_weights if name == "weights" else of_others)}
        for name, params in members.items()
        if params
    ]


def _by_group(
    module: nn.Module, is_activation: Callable[[nn.Module], bool], inside_activation: bool
) -> Iterator[tuple[str, nn.Parameter]]:
    inside_activation = inside_activation or is_activation(module)
    for name, parameter in module.named_parameters(recurse=False):
        if inside_activation:
            group = "activation"
        elif isinstance(module, _NORMALIZATIONS) or name.endswith("bias") or parameter.ndim < 2:
            group = "norm_and_bias"
        else:
            group = "weights"
        yield group, parameter
    for child in module.children():
        yield from _by_group(child, is_activation, inside_activation)


def _declared_without_decay(model: nn.Module) -> Iterator[nn.Parameter]:
    # By every module for its own parameters: the model may be wrapped, or a part of another one.
    for module in model.modules():
        names = getattr(module, "no_weight_decay", None)
        patterns = names() if callable(names) else ()
        if patterns:
            for name, parameter in module.named_parameters():
                if any(fnmatch(name, pattern) for pattern in patterns):
                    yield parameter
