"""Which operators of which modules make and read what, in a program that torch.export has made of a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from .arguments import zero_batch
from .ops import RECORDED

BATCH_NORM = torch.ops.aten.batch_norm.default
PWLU_OPERATOR = torch.ops.pwlu.forward.default


class DataFlow:
    """The calls of every module's own operators, with the model in eval mode and no PWLU in phase I.

    `purpose` says in an error what follows the data, and `instead` what to do where that fails.

    Raises:
        ValueError: torch.export cannot take the model.
    """

    def __init__(self, model: nn.Module, input_size: Sequence[int], purpose: str, instead: str) -> None:
        program = _exported(model, input_size, purpose, instead)
        self._model = model
        self.names = {module: name for name, module in model.named_modules()}
        self._calls: dict[tuple[object, nn.Module], list[Node]] = {}
        for part in program.graph_module.modules():  # several where the model switches autograd on or off
            for node in part.graph.nodes if isinstance(part, GraphModule) else ():
                if node.target in (BATCH_NORM, PWLU_OPERATOR):
                    self._calls.setdefault((node.target, self.caller(node)), []).append(node)

    def caller(self, node: Node) -> nn.Module:
        """Return the module whose forward called the node's operator."""
        path, _ = list(node.meta["nn_module_stack"].values())[-1]
        return self._model.get_submodule(path)

    def calls(self, operator: object, module: nn.Module) -> list[Node]:
        """Return the calls of BATCH_NORM or PWLU_OPERATOR by `module`."""
        return self._calls.get((operator, module), [])


def is_written_between(start: Node, end: Node, but: Iterable[Node] = ()) -> bool:
    """Return whether an operator between the two changes a tensor, which might be what `start` reads."""
    node, left_out = start.next, set(but)
    while node is not end:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            if node not in left_out:
                return True
        node = node.next
    return False


def _exported(model: nn.Module, input_size: Sequence[int], purpose: str, instead: str) -> ExportedProgram:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", RECORDED)  # the program goes nowhere
            return torch.export.export(model, (zero_batch(model, input_size),))
    except Exception as error:
        raise ValueError(
            f"{purpose} follows the data through {type(model).__name__} with torch.export, which "
            f"failed at input_size={input_size!r} ({type(error).__name__}: {error}); check input_size, the "
            f"shape of one input without the batch dimension{instead}"
        ) from error
