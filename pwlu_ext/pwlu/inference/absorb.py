"""Which BatchNorm a PWLU can absorb: the one that makes its input, if nothing else reads what that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..dataflow import BATCH_NORM, PWLU_OPERATOR, DataFlow, is_written_between
from ..module import PWLU
from ..norms import PLAIN_NORMS, calls_its_activation


@dataclass(frozen=True)
class Feed:
    """What makes a PWLU's input."""

    pwlu: str  # qualified name of the PWLU
    norm: str | None  # that of the BatchNorm that it can absorb
    reason: str = ""  # why there is none


def find_feeds(model: nn.Module, input_size: Sequence[int]) -> tuple[Feed, ...]:
    """Follow the data through `model`, which is in eval mode, to every PWLU; ValueError if export cannot."""
    flow = DataFlow(model, input_size, "absorb_batch_norm", ", or fold with absorb_batch_norm=False")
    return tuple(
        _feed(flow, name, module) for name, module in model.named_modules() if isinstance(module, PWLU)
    )


def _feed(flow: DataFlow, name: str, pwlu: PWLU) -> Feed:
    calls = flow.calls(PWLU_OPERATOR, pwlu)
    if not calls:
        return Feed(name, None, "it never ran")
    sources = [call.all_input_nodes[0] for call in calls]
    for source in sources:
        if source.target is not BATCH_NORM:
            return Feed(name, None, f"its input is made by {source.target}")
    norms = {flow.caller(source) for source in sources}
    if len(norms) > 1:
        return Feed(name, None, f"its inputs are made by {len(norms)} different BatchNorms")
    norm = norms.pop()
    reason = _reason_to_keep(flow, norm, pwlu)
    return Feed(name, None, reason) if reason else Feed(name, flow.names[norm])


def _reason_to_keep(flow: DataFlow, norm: nn.Module, pwlu: PWLU) -> str:
    """Return why `norm`, which makes all inputs of `pwlu`, cannot be absorbed; empty if it can."""
    outputs, calls = flow.calls(BATCH_NORM, norm), flow.calls(PWLU_OPERATOR, pwlu)
    own_activation = calls_its_activation(type(norm)) and norm.act is pwlu
    if type(norm) not in PLAIN_NORMS and not own_activation:
        return f"its input is made by a {type(norm).__name__}, which may do more than normalise"
    if any(output.args[5] for output in outputs):
        return "the BatchNorm before it uses the statistics of the batch itself"
    readers = {reader for output in outputs for reader in output.users}
    others = sorted(str(reader.target) for reader in readers - set(calls))
    if others:
        return f"the output of the BatchNorm before it also goes to {', '.join(others)}"
    if any(is_written_between(output, reader) for output in outputs for reader in output.users):
        return "something is written in place between the BatchNorm and it"
    dims = {output.meta["val"].dim() for output in outputs}
    if pwlu.num_parameters > 1 and any(pwlu.channel_dim % dim != 1 for dim in dims):
        return "its channels are in another dimension than those of the BatchNorm before it"
    return ""
