"""PWLUs of an ONNX model in 8 bits: tables of 256 codes."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

# torch.onnx.export writes these at every node.
_CLASSES, _SCOPES = "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.name_scopes"
_CODES = 256
_DTYPES = {TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8}


def quantization_options(model: ModelProto) -> dict[str, Any]:
    """Return keyword arguments for onnxruntime's `quantize_static` that put PWLUs between two 8-bit tensors.

    They leave the nodes that PWLUs consist of in floating point, for `tabulate`, and add what feeds or reads
    a PWLU, such as a mean before the classifier, to the types of operators that onnxruntime quantises.

    Args:
        model: what torch.onnx.export(dynamo=True) made of `pwlu.fold(model)`.

    Raises:
        ValueError: no node says that it is of a PWLU.
    """
    inside = _nodes_of_pwlus(model)
    read = {name for node in inside for name in node.input}
    written = {name for node in inside for name in node.output}
    around = {
        node.op_type
        for node in model.graph.node
        if _pwlu(node) is None and (written.intersection(node.input) or read.intersection(node.output))
    }
    return {
        "nodes_to_exclude": [node.name for node in inside],
        "op_types_to_quantize": sorted({*QLinearOpsRegistry, *QDQRegistry, *around}),
        # Without it a MaxPool, and others that move values alone, stay as they are behind a float tensor.
        "extra_options": {"ForceQuantizeNoInputCheck": True},
    }


def tabulate(model: ModelProto) -> ModelProto:
    """Return a copy of a quantised model in which PWLUs between two 8-bit tensors are tables of 256 codes.

    A table is what onnxruntime computes, from a DequantizeLinear through the PWLU to a QuantizeLinear, for
    every code in every channel; so the copy computes the same codes. It takes standard operators only. A
    warning names PWLUs that stay in floating point.

    Args:
        model: what onnxruntime's `quantize_static` made with `quantization_options`.

    Raises:
        ValueError: no node says that it is of a PWLU, or no PWLU is between two 8-bit tensors.
    """
    _nodes_of_pwlus(model)
    graph = _Graph(onnx.shape_inference.infer_shapes(model))
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    for node in model.graph.node:
        table = _table_to(node, graph) if node.op_type == "QuantizeLinear" else None
        if table is None:
            nodes.append(node)
        else:
            lookup, values = _lookup(table)
            nodes += lookup
            constants += values
    if not constants:
        raise ValueError(
            "no PWLU is between two 8-bit tensors: call onnxruntime's quantize_static with "
            "quant_format=QuantFormat.QDQ and **quantization_options(model)"
        )
    result = _rebuilt(model, nodes, constants)
    _warn_of_float(result)
    return result


def _pwlu(node: NodeProto) -> str | None:
    """Return the name of the PWLU that a node is of, or None if it is of none."""
    written = {entry.key: entry.value for entry in node.metadata_props}
    if "'pwlu.inference." not in written.get(_CLASSES, ""):
        return None
    return ast.literal_eval(written[_SCOPES])[-2]  # the last one is the operator's


def _nodes_of_pwlus(model: ModelProto) -> list[NodeProto]:
    nodes = [node for node in model.graph.node if _pwlu(node) is not None]
    if not nodes:
        raise ValueError(
            "no node of the model says that it is of a PWLU: export pwlu.fold(model) with "
            "torch.onnx.export(dynamo=True), and quantise the result as it is; quant_pre_process and other "
            "optimisers can drop what the exporter writes at the nodes"
        )
    return nodes


def _warn_of_float(model: ModelProto) -> None:
    names = sorted({name for node in model.graph.node if (name := _pwlu(node)) is not None})
    if names:
        warnings.warn(
            f"pwlu: PWLUs {names} stay in floating point, as what they read or what reads them is not in 8 "
            "bits; call quantize_static with **quantization_options(model)",
            stacklevel=3,
        )


class _Chain(NamedTuple):
    """What is computed from a quantised tensor to another."""

    nodes: Sequence[NodeProto]
    source: str
    target: str


class _Table(NamedTuple):
    """The codes of a chain's target, (channels, 256): a code of the source, as a byte, is the column."""

    chain: _Chain
    codes: np.ndarray
    axis: int
    rank: int


class _Graph:
    """What makes every tensor of a model, and of which type it is."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.makers = {name: node for node in graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.infos = {info.name: info for info in (*graph.value_info, *graph.input)}

    def chain_to(self, quantize: NodeProto) -> _Chain | None:
        """Return what a QuantizeLinear ends, or None if that is no function of one tensor, or has no PWLU."""
        (target,) = quantize.output
        nodes: dict[str, NodeProto] = {}  # by an output
        sources = set()
        waiting = [target]
        while waiting:
            name = waiting.pop()
            if name in nodes or name in self.constants or not name:
                continue
            if name not in self.makers:  # an input of the model
                return None
            node = nodes[name] = self.makers[name]
            if node.op_type == "DequantizeLinear":
                sources.add(node.input[0])
            else:
                waiting += node.input
        if len(sources) != 1 or not any(_pwlu(node) is not None for node in nodes.values()):
            return None
        ordered = [node for node in self.model.graph.node if nodes.keys() & {*node.output}]
        return _Chain(ordered, sources.pop(), target)

    def session(self, chain: _Chain) -> onnxruntime.InferenceSession:
        """Return onnxruntime's session of a chain alone."""
        used = {name for node in chain.nodes for name in node.input}
        constants = [tensor for name, tensor in self.constants.items() if name in used]
        target = ValueInfoProto(name=chain.target)
        graph = helper.make_graph(chain.nodes, "chain", [self.infos[chain.source]], [target], constants)
        opsets, version = self.model.opset_import, self.model.ir_version
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _table_to(quantize: NodeProto, graph: _Graph) -> _Table | None:
    """Return the table of what a QuantizeLinear ends, or None if it is none."""
    chain = graph.chain_to(quantize)
    if chain is None or chain.source not in graph.infos:
        return None
    kind = graph.infos[chain.source].type.tensor_type
    if kind.elem_type not in _DTYPES:
        return None
    sizes = [size.dim_value for size in kind.shape.dim]  # 0 where the size is free
    session = graph.session(chain)

    def run(codes: np.ndarray) -> np.ndarray:
        return session.run(None, {chain.source: codes.view(_DTYPES[kind.elem_type])})[0]

    found = _codes_by_channel(run, sizes)
    return found and _Table(chain, *found, rank=len(sizes))


def _codes_by_channel(
    run: Callable[[np.ndarray], np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, int] | None:
    """Return (codes, axis) such that run(x) is codes[place on that axis, x] everywhere, or None."""
    shape = [size or 2 for size in sizes]  # one alone would hide what a free axis does
    start = np.random.default_rng(0).integers(_CODES, size=shape).astype(np.uint8)
    places = np.indices(shape, sparse=True)
    # A channel is 1, where several axes will do.
    axes = sorted((axis for axis, size in enumerate(sizes) if size), key=lambda axis: axis != 1)
    tables = {axis: np.full((sizes[axis], _CODES), -1, np.int16) for axis in axes}
    for step in range(_CODES):  # then every element has had every code
        x = start + np.uint8(step)
        y = run(x)
        if y.shape != x.shape or y.dtype not in _DTYPES.values():
            return None
        values = y.view(np.uint8)
        tables = {axis: table for axis, table in tables.items() if _enter(table, (places[axis], x), values)}
        if all((table >= 0).all() for table in tables.values()):
            break
    return next(((table.astype(np.uint8).view(y.dtype), axis) for axis, table in tables.items()), None)


def _enter(table: np.ndarray, places: tuple[np.ndarray, ...], values: np.ndarray) -> bool:
    """Write values into a table, where -1 is nothing, and return whether none contradicts another."""
    before = table[places]
    table[places] = values
    return bool(((before < 0) | (before == values)).all() and (table[places] == values).all())


def _lookup(table: _Table) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes that look a table's codes up, and their constants."""
    chain, rank = table.chain, table.rank
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []

    def constant(role: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, f"{chain.target}_{role}"))
        return constants[-1].name

    def node(op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{chain.target}_{op_type}_{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    # onnxruntime's 8-bit convolutions have the channels last, and transpositions to and fro cancel. Its
    # GatherElements is three times as fast as its Gather. An index below 0, of int8, counts from the end.
    order = [axis for axis in range(rank) if axis != table.axis] + [table.axis]
    moved = node("Transpose", chain.source, perm=order)
    index = node("Cast", moved, to=TensorProto.INT32)
    rows = node("Reshape", index, constant("rows", np.array([-1, len(table.codes)])))
    found = node("GatherElements", constant("codes", table.codes.T), rows, axis=0)
    back = node("Reshape", found, node("Shape", moved))
    node("Transpose", back, output=chain.target, perm=[order.index(axis) for axis in range(rank)])
    return nodes, constants


def _rebuilt(model: ModelProto, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]) -> ModelProto:
    """Return a copy of a model with other nodes and more constants, without what its outputs do not need."""
    needed = {info.name for info in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.insert(0, node)
            needed.update(node.input)
    result = ModelProto()
    result.CopyFrom(model)
    for field in ("node", "initializer", "value_info"):
        result.graph.ClearField(field)
    result.graph.node.extend(kept)
    initializers = (*model.graph.initializer, *constants)
    result.graph.initializer.extend(tensor for tensor in initializers if tensor.name in needed)
    result.graph.value_info.extend(info for info in model.graph.value_info if info.name in needed)
    return result
