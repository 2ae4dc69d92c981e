"""`replace_activations`: the rule of the paper's section 4.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

from torch import Tensor, nn

from ..module import PWLU
from ..starting import STARTS
from ..suggestion import expected_one_of
from .making import new_module
from .measure import FunctionalUse, measure_calls
from .report import ReplacementReport, Site
from .rereads import find_rereads
from .sites import Call, Slot, find_slots, is_site_module, leave_fused_kernels
from .starts import start_options

T = TypeVar("T")

_REREAD = "works in place, and what it overwrites is read again: a PWLU would change the network"


def replace_activations(
    model: nn.Module,
    *,
    input_size: Sequence[int] = (3, 224, 224),
    make: Callable[..., nn.Module] = PWLU,
    init: str | Callable[[Tensor], Tensor] | None = None,
    min_positions: int = 2,
    channel_dim: int | None = None,
    is_activation: Callable[[nn.Module], bool] | None = None,
) -> ReplacementReport:
    """Put a new activation, `make(num_channels)`, at every activation site of `model` except tiny maps.

    Sites are the elementwise activation modules of torch and timm and any PWLU; gates (Sigmoid, Hardsigmoid,
    Tanh, Softmax ...) are not sites. Channels and map sizes are measured by one forward on a zero input, in
    eval mode; training flags and buffers are restored. Call it before the optimizer, DistributedDataParallel
    or torch.compile see the model. If an error is raised, the model is as it was.

    Kept, and reported with the reason: sites with tiny maps, sites that never ran, a module called with
    several widths, activations called as functions (`F.relu`) or written out (`x * sigmoid(x)`), also inside
    of scripted or traced modules. A module called several times with one width gets one new module for all
    the calls; one parameter-free module registered in several places gets a new module in each.

    Args:
        model: any module whose forward takes one batched tensor.
        input_size: shape of one input without the batch dimension, e.g. (3, 224, 224).
        make: called as `make(num_channels)`; where the channels are not in dimension 1, as
            `make(num_channels, channel_dim=-1)`. The new module goes to its site's device and takes over its
            training and `inplace` flags; it is float64 if the site's input is.
        init: what the new modules start as. "replaced": each as the activation that it replaces, with its
            slope or its learned ones (PReLU), an RReLU as in evaluation. Sites whose activation has other
            parameters to learn, is a PWLU, or works in place where its input is read again, are kept then.
            Anything else goes to `make` as `init`, as `pwlu.PWLU` takes it. None: `make` decides.
        min_positions: fewest spatial positions (product of all sizes but batch and channels) of a site. The
            default leaves 1x1 maps (SE blocks) and (batch, channels) inputs alone.
        channel_dim: channel dimension of all sites. None infers it for each, 1 or -1, from the linear,
            convolution or normalisation layer that made its input, or else the last one that ran.
        is_activation: names further modules that are sites, e.g. activations of another package.

    Returns:
        The report; its printed table ends with e.g. `replaced 17 of 17 sites, +0.7 % parameters`.

    Raises:
        ValueError: nothing could be replaced, the model does not run, or an argument has a wrong value.
    """

    def is_site(module: nn.Module) -> bool:
        return is_site_module(module) or (is_activation is not None and is_activation(module))

    size = _checked_arguments(model, is_site(model), input_size, make, init, min_positions)
    before = _count_parameters(model)
    slots = find_slots(model, is_site)
    functional = _measured(measure_calls, model, slots, size, channel_dim)
    kept = {slot: _reason_to_keep(slot.calls, min_positions) for slot in slots}
    if init == "replaced":
        chosen = [slot for slot in slots if not kept[slot]]
        kept |= dict.fromkeys(_measured(find_rereads, model, chosen, size), _REREAD)
    new = {}
    for slot in slots:
        start = kept[slot] or _start_options(slot, init)
        if isinstance(start, str):
            kept[slot] = start
        else:
            new[slot] = new_module(slot, make, start)
    sites = [_slot_site(slot, kept[slot], new.get(slot)) for slot in slots]
    sites += [_function_site(use) for use in functional]
    if not new:
        raise ValueError(_nothing_replaced(model, sites, before))
    for slot, module in new.items():
        slot.put(module)
    leave_fused_kernels(model)
    return ReplacementReport(tuple(sites), before, _count_parameters(model))


def _checked_arguments(
    model: nn.Module,
    is_activation: bool,
    input_size: Sequence[int],
    make: Callable[..., nn.Module],
    init: object,
    min_positions: int,
) -> tuple[int, ...]:
    """Check the arguments that need no measuring; return `input_size` as a tuple."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "model is wrapped in DistributedDataParallel: replace its activations before wrapping"
        )
    if is_activation:
        raise ValueError(
            f"model is itself an activation ({type(model).__name__}), so nothing holds it that could hold a "
            f"new one; call make(num_channels) yourself, or wrap the model in nn.Sequential"
        )
    if not callable(make):
        raise ValueError(
            f"make is {make!r}, expected a callable that takes the channel count, e.g. pwlu.PWLU"
        )
    if isinstance(init, str) and init not in (known := (*STARTS, "replaced")):
        raise ValueError(expected_one_of("init", init, known))
    if not isinstance(min_positions, int) or min_positions < 1:
        raise ValueError(f"min_positions is {min_positions!r}, expected an integer >= 1")
    sizes = tuple(input_size) if isinstance(input_size, Sequence) else ()
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"input_size is {input_size!r}, expected the shape of one input without the batch dimension, "
            f"e.g. (3, 224, 224)"
        )
    return sizes


def _measured(
    measure: Callable[..., T],
    model: nn.Module,
    slots: list[Slot],
    size: tuple[int, ...],
    *options: int | None,
) -> T:
    try:
        return measure(model, slots, size, *options)
    except Exception as error:
        channel_dim = f", and channel_dim={options[0]}" if options else ""
        raise ValueError(
            f"the measuring forward of {type(model).__name__} at input_size={size} failed "
            f"({type(error).__name__}: {error}); check input_size, the shape of one input without the batch "
            f"dimension, e.g. (channels, height, width){channel_dim}"
        ) from error


def _reason_to_keep(calls: list[Call], min_positions: int) -> str:
    """Return why a site with these calls stays as it is; empty if it is to be replaced."""
    if not calls:
        return "never ran in the measuring forward"
    widths = sorted({call.num_channels for call in calls})
    if len(widths) > 1:
        return (
            f"one module called with {', '.join(map(str, widths))} channels: no new one could serve them all"
        )
    if len({call.channel_dim for call in calls}) > 1:
        return "one module called with its channels in different dimensions"
    if max(prod(call.spatial_size) for call in calls) < min_positions:
        return f"tiny map, fewer than {min_positions} positions"
    return ""


def _start_options(slot: Slot, init: object) -> dict[str, Any] | str:
    """Return what `make` gets to start the site's new module, or the reason to keep the site."""
    if init is None:
        return {}
    return start_options(slot.module, slot.calls[0]) if init == "replaced" else {"init": init}


def _slot_site(slot: Slot, reason: str, new: nn.Module | None) -> Site:
    remarks = []
    if not reason and len(slot.holders) > 1:
        remarks.append(f"tied: one new module in {len(slot.holders)} places")
    if not reason and len(slot.calls) > 1:
        remarks.append(f"one new module serves {len(slot.calls)} calls")
    start = new.starts_as if isinstance(new, PWLU) else ""
    return _site(
        slot.name, type(slot.module).__name__, slot.calls, not reason, reason or "; ".join(remarks), start
    )


def _function_site(use: FunctionalUse) -> Site:
    times = f" {len(use.calls)} times" if len(use.calls) > 1 else ""
    how = "called as a function" if use.function.startswith("F.") else "written out"
    what = "there is no module to replace"
    is_plain = not (use.module._modules or use.module._parameters)
    if use.name and is_plain:  # perhaps another package's activation
        kind = type(use.module).__name__
        what = f"if {kind} is an activation, name it by is_activation to have it replaced"
    return _site(use.name or "(model)", use.function, use.calls, False, f"{how}{times}: {what}")


def _site(name: str, kind: str, calls: list[Call], replaced: bool, reason: str, start: str = "") -> Site:
    widths = {call.num_channels for call in calls}
    spatial = max((call.spatial_size for call in calls), key=prod, default=None)
    return Site(name, kind, widths.pop() if len(widths) == 1 else None, spatial, replaced, reason, start)


def _nothing_replaced(model: nn.Module, sites: list[Site], parameters: int) -> str:
    name = type(model).__name__
    if not sites:
        return f"nothing to replace: {name} has no activation site; name its activations by is_activation=..."
    table = ReplacementReport(tuple(sites), parameters, parameters)
    return f"nothing was replaced in {name}; every site was kept for the reason given:\n{table}"


def _count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
