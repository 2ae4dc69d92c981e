"""Which BatchNorm a PWLU can absorb: the one that makes its input, if nothing else reads what that makes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from ..arguments import zero_batch
from ..module import PWLU
from ..ops import RECORDED

BATCH_NORM = torch.ops.aten.batch_norm.default
OPERATOR = torch.ops.pwlu.forward.default
PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# timm's BatchNorms that hold the activation they call, by name: this package must not import timm.
TIMM_NORMS_WITH_ACTIVATION = ("BatchNormAct2d", "SyncBatchNormAct")


@dataclass(frozen=True)
class Feed:
    """What makes a PWLU's input."""

    pwlu: str  # qualified name of the PWLU
    norm: str | None  # that of the BatchNorm that it can absorb
    reason: str = ""  # why there is none


def find_feeds(model: nn.Module, input_size: Sequence[int]) -> tuple[Feed, ...]:
    """Follow the data through `model`, which is in eval mode, to every PWLU; ValueError if export cannot."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", RECORDED)  # the program goes nowhere
            program = torch.export.export(model, (zero_batch(model, input_size),))
    except Exception as error:
        raise ValueError(
            f"absorb_batch_norm follows the data through {type(model).__name__} with torch.export, which "
            f"failed at input_size={input_size!r} ({type(error).__name__}: {error}); check input_size, the "
            f"shape of one input without the batch dimension, or fold with absorb_batch_norm=False"
        ) from error
    flow = _DataFlow(model, program)
    return tuple(
        flow.feed(name, module) for name, module in model.named_modules() if isinstance(module, PWLU)
    )


def calls_its_activation(norm: nn.Module) -> bool:
    """Return True for timm's BatchNorms whose forward ends with a call of their own child `act`."""
    return type(norm).__module__.startswith("timm.") and type(norm).__name__ in TIMM_NORMS_WITH_ACTIVATION


class _DataFlow:
    """The calls of every module's own operators in an exported program."""

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._calls: dict[tuple[object, nn.Module], list[Node]] = {}
        for part in program.graph_module.modules():  # several where the model switches autograd on or off
            for node in part.graph.nodes if isinstance(part, GraphModule) else ():
                if node.target in (BATCH_NORM, OPERATOR):
                    self._calls.setdefault((node.target, self._caller(node)), []).append(node)

    def _caller(self, node: Node) -> nn.Module:
        """Return the module whose forward called the node's operator."""
        path, _ = list(node.meta["nn_module_stack"].values())[-1]
        return self._model.get_submodule(path)

    def feed(self, name: str, pwlu: PWLU) -> Feed:
        calls = self._calls.get((OPERATOR, pwlu), [])
        if not calls:
            return Feed(name, None, "it never ran")
        sources = [call.all_input_nodes[0] for call in calls]
        for source in sources:
            if source.target is not BATCH_NORM:
                return Feed(name, None, f"its input is made by {source.target}")
        norms = {self._caller(source) for source in sources}
        if len(norms) > 1:
            return Feed(name, None, f"its inputs are made by {len(norms)} different BatchNorms")
        norm = norms.pop()
        reason = self._reason_to_keep(norm, pwlu)
        return Feed(name, None, reason) if reason else Feed(name, self._names[norm])

    def _reason_to_keep(self, norm: nn.Module, pwlu: PWLU) -> str:
        """Return why `norm`, which makes all inputs of `pwlu`, cannot be absorbed; empty if it can."""
        outputs, calls = self._calls[BATCH_NORM, norm], self._calls[OPERATOR, pwlu]
        own_activation = calls_its_activation(norm) and norm.act is pwlu
        if type(norm) not in PLAIN_NORMS and not own_activation:
            return f"its input is made by a {type(norm).__name__}, which may do more than normalise"
        if any(output.args[5] for output in outputs):
            return "the BatchNorm before it uses the statistics of the batch itself"
        readers = {reader for output in outputs for reader in output.users}
        others = sorted(str(reader.target) for reader in readers - set(calls))
        if others:
            return f"the output of the BatchNorm before it also goes to {', '.join(others)}"
        if any(_is_written_between(output, reader) for output in outputs for reader in output.users):
            return "something is written in place between the BatchNorm and it"
        dims = {output.meta["val"].dim() for output in outputs}
        if pwlu.num_parameters > 1 and any(pwlu.channel_dim % dim != 1 for dim in dims):
            return "its channels are in another dimension than those of the BatchNorm before it"
        return ""


def _is_written_between(start: Node, end: Node) -> bool:
    # Whether an operator between the two changes a tensor, which might be what `start` reads.
    node = start.next
    while node is not end:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return True
        node = node.next
    return False
