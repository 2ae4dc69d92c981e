"""`fuse_batch_norm`: find the BatchNorms that a PWLU can compute together with itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from ..dataflow import BATCH_NORM, PWLU_OPERATOR, DataFlow, is_written_between
from ..evaluation import evaluation_mode
from ..module import PWLU
from ..norms import PLAIN_NORMS, calls_its_activation
from ..surgery.report import aligned
from .norms import FusedNorm, fuse

_IN_PLACE = torch.ops.aten.add_.Tensor
_ADDITIONS = (torch.ops.aten.add.Tensor, _IN_PLACE)


@dataclass(frozen=True)
class FusedSite:
    """One PWLU.

    Attributes:
        pwlu: its qualified name.
        norms: those of the BatchNorms that it computes with itself: the one that makes its input, or those
            that make the terms of the sum that is its input.
        reason: why there is none, or why one of two is left.
    """

    pwlu: str
    norms: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class FuseReport:
    """Every PWLU, with its BatchNorms or the reason why it has none; `print` it for a table."""

    sites: tuple[FusedSite, ...]

    def __str__(self) -> str:
        rows = [(site.pwlu, _result(site)) for site in self.sites]
        return "\n".join([*aligned([("PWLU", "result"), *rows], "<<"), self.summary()])

    def summary(self) -> str:
        """Return the table's last line, e.g. `17 of 17 PWLUs fused with the BatchNorm before them`."""
        fused = sum(bool(site.norms) for site in self.sites)
        return f"{fused} of {len(self.sites)} PWLUs fused with the BatchNorm before them"


def _result(site: FusedSite) -> str:
    if not site.norms:
        return f"alone: {site.reason}"
    left = f", without the other one: {site.reason}" if site.reason else ""
    return f"fused with {' and '.join(site.norms)}{left}"


def fuse_batch_norm(
    model: nn.Module,
    *,
    input_size: Sequence[int] = (3, 224, 224),
    is_batch_norm: Callable[[nn.Module], bool] | None = None,
) -> FuseReport:
    """Let every PWLU of `model` compute the BatchNorm before it together with itself, in place.

    For BatchNorm -> PWLU and BatchNorm -> sum with a shortcut -> PWLU, found by following the data through
    the model. In training, phase II, this takes less time than both apart, except on tiny tensors, and
    nothing but the BatchNorm's input is kept for the backward pass, as with ReLU in place. Everything else
    stays: parameters, buffers, names in the state dict, training flags, the statistics of all processes
    (SyncBatchNorm), and what the network computes, up to rounding. In phase I, with hooks on the BatchNorm,
    in training without autograd, traced or exported, both run apart.

    The BatchNorm's output is no tensor until something else than a PWLU uses it: hooks of modules that end
    with the BatchNorm, and of the PWLU, get what stands for it, and backward hooks there do not see it.
    Running statistics move when it is used, and once where a checkpointed segment runs twice.

    Call it after SyncBatchNorms took the place of BatchNorms, and before DistributedDataParallel or
    torch.compile see the model.

    Args:
        model: any module with a PWLU, whose forward takes one batched tensor.
        input_size: shape of one input without the batch dimension.
        is_batch_norm: names further BatchNorms, of a class derived from torch's that computes the same; one
            with an attribute `process_group` does over its processes (None: all), as SyncBatchNorm.

    Raises:
        ValueError: no PWLU can be fused, with the reasons; torch.export cannot follow the data.
    """

    def can_wait(norm: nn.Module) -> bool:
        kind = type(norm)
        is_plain = kind in PLAIN_NORMS or calls_its_activation(kind) or isinstance(norm, FusedNorm)
        return is_plain or (is_batch_norm is not None and is_batch_norm(norm))

    with evaluation_mode(model):
        phases = {site: site.statistics for site in model.modules() if isinstance(site, PWLU)}
        if not phases:
            raise ValueError(f"nothing to fuse: {type(model).__name__} has no PWLU")
        try:
            for site in phases:
                site.statistics = None  # else the starting functions would be exported
            search = _Search(DataFlow(model, input_size, "fuse_batch_norm", ""), can_wait)
        finally:
            for site, statistics in phases.items():
                site.statistics = statistics
    sites = [search.site(name, site) for name, site in model.named_modules() if isinstance(site, PWLU)]
    report = FuseReport(tuple(sites))
    if not any(site.norms for site in sites):
        raise ValueError(f"no BatchNorm of {type(model).__name__} can be fused:\n{report}")
    for name in {norm for site in sites for norm in site.norms}:
        norm = model.get_submodule(name)
        if not isinstance(norm, _BatchNorm):
            kind = type(norm).__name__
            raise ValueError(f"is_batch_norm names a {kind}, whose class is not derived from torch's")
        if not isinstance(norm, FusedNorm):
            fuse(norm)
    return report


class _Search:
    def __init__(self, flow: DataFlow, can_wait: Callable[[nn.Module], bool]) -> None:
        self._flow, self._can_wait = flow, can_wait

    def site(self, name: str, pwlu: PWLU) -> FusedSite:
        calls = self._flow.calls(PWLU_OPERATOR, pwlu)
        if not calls:
            return FusedSite(name, (), "it never ran")
        norms: dict[str, None] = {}
        reasons: dict[str, None] = {}
        for call in calls:
            found, reason = self._norms(call, pwlu)
            if not found:
                return FusedSite(name, (), reason)
            norms |= dict.fromkeys(self._flow.names[norm] for norm in found)
            reasons |= dict.fromkeys([reason] if reason else [])
        return FusedSite(name, tuple(norms), "; ".join(reasons))

    def _norms(self, call: Node, pwlu: PWLU) -> tuple[list[nn.Module], str]:
        """Return the BatchNorms that make the input of a PWLU's call, and why one that does is left."""
        source = call.all_input_nodes[0]
        if pwlu.num_parameters > 1 and pwlu.channel_dim % source.meta["val"].dim() != 1:
            return [], "its channels are not in dimension 1, where those of a BatchNorm are"
        if source.target in _ADDITIONS:
            return self._norms_of_sum(source, call)
        if source.target is not BATCH_NORM:
            return [], f"its input is made by {source.target}"
        reason = self._reason_to_keep(source)
        return [] if reason else [self._flow.caller(source)], reason

    def _norms_of_sum(self, total: Node, call: Node) -> tuple[list[nn.Module], str]:
        terms = total.all_input_nodes
        norms = [term for term in terms if term.target is BATCH_NORM]
        if not norms:
            return [], f"its input is a sum made by {' and '.join(str(term.target) for term in terms)}"
        if len(terms) != 2 or len({term.meta["val"].shape for term in terms}) > 1 or total.kwargs:
            return [], "its input is a sum of other shapes, or with a factor"
        if total.target is _IN_PLACE and terms[0] not in norms:
            return [], "the sum before it is written into the shortcut"
        if any(_is_written(term, total) for term in terms if term not in norms):
            return [], "the shortcut of the sum before it is changed in place"
        if len(total.users) > 1:
            return [], f"the sum before it also goes to {_others(total, call)}"
        reasons = {norm: self._reason_to_keep(norm) for norm in norms}
        if total.target is _IN_PLACE and reasons[terms[0]]:
            return [], reasons[terms[0]]
        fused = [self._flow.caller(norm) for norm, reason in reasons.items() if not reason]
        return fused, next(filter(None, reasons.values()), "")

    def _reason_to_keep(self, output: Node) -> str:
        """Return why the BatchNorm of this output, which goes to a PWLU or a sum, must compute it, or ""."""
        norm = self._flow.caller(output)
        if not self._can_wait(norm):
            return f"its input is made by a {type(norm).__name__}, which may do more than normalise"
        for each in self._flow.calls(BATCH_NORM, norm):
            readers = list(each.users)
            if len(readers) != 1:
                return f"the output of the BatchNorm before it goes to {_others(each, None)}"
            end, sums = readers[0], []
            if end.target in _ADDITIONS and len(end.users) == 1:
                end, sums = next(iter(end.users)), [end]
            if end.target is not PWLU_OPERATOR:
                return f"the output of the BatchNorm before it goes to {end.target}"
            if is_written_between(each, end, but=sums):
                return "something is written in place between the BatchNorm and it"
        return ""


def _is_written(node: Node, reader: Node) -> bool:
    """Return whether an operator besides `reader` changes what `node` makes."""
    others = (user for user in node.users if user is not reader and user.args and user.args[0] is node)
    return any(
        isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable for user in others
    )


def _others(node: Node, reader: Node | None) -> str:
    """Return the operators that read what `node` makes, besides `reader`."""
    return ", ".join(sorted(str(user.target) for user in node.users if user is not reader)) or "nothing"
