"""What the PWLU in an activation's place starts as, so that the network computes what it computed before."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from ..module import PWLU
from ..starting import starting_function
from .sites import Call

Asymptotes = tuple[float | None, float | None]

# Classes of torch and of timm, which share names, and what PWLU calls them.
NAMED = {
    **{"ReLU": "relu", "ReLU6": "relu6", "GELU": "gelu", "Tanh": "tanh", "Identity": "identity"},
    **{"SiLU": "silu", "Swish": "silu", "SwishMe": "silu"},
    **{"Hardswish": "hardswish", "HardSwish": "hardswish", "HardSwishMe": "hardswish"},
}
# The slopes of the asymptotes of others, on the left and on the right; None: there is none.
ASYMPTOTES: dict[str, Asymptotes] = {
    **dict.fromkeys(("ELU", "CELU", "Softplus", "Mish", "MishMe", "HardMish", "HardMishMe"), (0.0, 1.0)),
    **dict.fromkeys(("GELU", "GELUTanh", "QuickGELU"), (0.0, 1.0)),
    **dict.fromkeys(("Sigmoid", "Hardsigmoid", "HardSigmoid", "HardSigmoidMe", "Softsign"), (0.0, 0.0)),
    "SELU": (0.0, 1.0507009873554805),
    "SquaredReLU": (0.0, None),
}
# Functions with the slopes 0 and 1 that timm's GammaAct multiplies by its gamma.
GATED = ("relu", "gelu", "silu", "swish", "mish", "elu", "celu", "softplus", "hard_swish")


def start_options(module: Any, call: Call) -> dict[str, Any] | str:
    """Return `init` and `init_slope` of a PWLU that starts as `module`, or the reason why there is none."""
    kind = _kind(module)
    if isinstance(module, PWLU):
        return "is a PWLU already"
    if kind == "PReLU":
        return _learned_slopes(module, call)
    if kind == "LeakyReLU":
        return {"init": "leaky_relu", "init_slope": float(module.negative_slope)}
    if kind == "RReLU":
        slope = (module.lower + module.upper) / 2  # as in evaluation
        return {"init": "leaky_relu", "init_slope": float(slope)}
    if kind in NAMED and getattr(module, "approximate", "none") == "none":
        return {"init": NAMED[kind]}
    return _own_function(module, kind)


def _kind(module: nn.Module) -> str:
    """Return the name of the class of torch or timm whose forward runs in `module`; "" for any other."""
    if type(module).__module__.startswith("timm."):
        return type(module).__name__
    for parent in type(module).__mro__:
        own = getattr(parent, "forward", None)
        if parent.__module__.startswith("torch.nn.modules.") and own is type(module).forward:
            return parent.__name__
    return ""


def _learned_slopes(module: Any, call: Call) -> dict[str, Any] | str:
    slopes = module.weight.detach()
    if slopes.is_meta:
        slopes = torch.full(slopes.shape, 0.25)  # they have no values, and `make` may be for another device
    if (slopes == slopes[0]).all():
        slopes = slopes[:1]  # for any number of functions
    if len(slopes) > 1 and call.channel_dim % (2 + len(call.spatial_size)) != 1:
        return f"has slopes for dimension 1, but channels in dimension {call.channel_dim}"
    return {"init": "leaky_relu", "init_slope": slopes}


def _own_function(module: nn.Module, kind: str) -> dict[str, Any] | str:
    """Start as a copy of the module itself, as it is now."""
    for tensors, what in ((module.parameters(), "parameters"), (module.buffers(), "buffers")):
        if any(True for _ in tensors):
            return f"has {what} of its own, which a starting function cannot have"
    function: Any = copy.deepcopy(module).eval()
    for part in function.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
        if isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False
    left_slope, right_slope = _asymptotes(function, kind)
    name = type(module).__name__ + (f"({options})" if (options := function.extra_repr()) else "")
    try:
        start = starting_function(function)
        start = dataclasses.replace(start, name=name, left_slope=left_slope, right_slope=right_slope)
        start.tail_slopes(torch.zeros(1), torch.zeros(1))
    except (ValueError, RuntimeError) as error:
        return f"no PWLU can start as it: {' '.join(str(error).split())}"
    return {"init": start}


def _asymptotes(function: Any, kind: str) -> Asymptotes:
    if kind == "GammaAct":
        is_known = getattr(function.act_fn, "__name__", "") in GATED
        return (0.0, function.gamma) if is_known else (None, None)
    if not getattr(function, "alpha", 1) > 0 < getattr(function, "beta", 1):
        return None, None  # mirrored
    return ASYMPTOTES.get(kind, (None, None))
