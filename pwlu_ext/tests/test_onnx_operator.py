"""pwlu::folded in ONNX Runtime computes what FoldedPWLU does in torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import pwlu
import pwlu.onnx
from pwlu import library
from pwlu.inference.folded import FOLDED
from pwlu_ext.tests.helpers import bent_module, folded_tables, run_python, special_inputs

SHAPES = [
    ((2, 5, 7, 9), 1),
    ((4, 5, 111, 99), 1),
    ((3, 17, 5), 1),
    ((4, 6, 33), -1),
    ((5000, 40), 1),
    ((2, 3000, 40), -1),
    ((3, 4, 5), 0),
    ((0, 4, 2), 1),
    ((3, 0, 2), 2),
]
INPUTS = ("x", "left", "interval", "slopes", "offsets")

pytest.importorskip("onnxscript", reason="the exporter needs onnxscript")
pytestmark = pytest.mark.skipif(
    library.library_file("_onnx") is None, reason="built without PWLU_ONNXRUNTIME_INCLUDE"
)


def session(model: onnx.ModelProto | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # the errors of these tests
    options.register_custom_ops_library(pwlu.onnx.custom_op_library())
    source = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def node(x_type: int = TensorProto.FLOAT, **attributes: int) -> onnx.ModelProto:
    """A model of the operator alone, for any shapes."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in INPUTS]
    inputs[0] = helper.make_tensor_value_info("x", x_type, None)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    folded = helper.make_node("folded", INPUTS, ["y"], domain="pwlu", **attributes)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("pwlu", 1)]
    graph = helper.make_graph([folded], "folded", inputs, [output])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(session: onnxruntime.InferenceSession, *arguments: Any) -> Tensor:
    names = [argument.name for argument in session.get_inputs()]
    (y,) = session.run(None, {n: a.numpy() for n, a in zip(names, arguments, strict=True)})
    return torch.from_numpy(np.asarray(y))


def exported(model: nn.Module, example: Tensor, path: Path) -> onnxruntime.InferenceSession:
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        custom_translation_table=pwlu.onnx.translation_table(),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    program.save(path)
    onnx.checker.check_model(onnx.load(path))
    return session(path)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("num_intervals", [1, 6, 16, 40])
def test_equals_the_operator_in_torch(num_intervals: int, threads: int) -> None:
    for shape, channel_dim in SHAPES:
        operator = session(node(channel_dim=channel_dim), threads)
        for groups in {1, shape[channel_dim]}:
            arguments = (
                special_inputs(shape, torch.float32),
                *folded_tables(groups, num_intervals, torch.float32),
            )
            torch.testing.assert_close(
                run(operator, *arguments), FOLDED(*arguments, channel_dim), rtol=0, atol=0, equal_nan=True
            )


def test_edge_cases(tmp_path: Path) -> None:
    """NaN, infinities on steep and flat tails, and a function whose boundaries have crossed."""
    module = pwlu.PWLU(3, num_intervals=4)
    with torch.no_grad():
        module.left_slope[1], module.right_slope[0] = 0.5, 0
        module.right[2] = -4.0
    folded = pwlu.fold(module, form="operator")
    operator = exported(folded, torch.zeros(2, 3), tmp_path / "module.onnx")
    values = [math.nan, math.inf, -math.inf, -3.0, -3.5, -0.0, 1.7, 3.0, 1e38]
    x = torch.tensor(values)[:, None].expand(-1, 3).contiguous()
    torch.testing.assert_close(run(operator, x), folded(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("absorb_batch_norm", [False, True])
def test_a_network(absorb_batch_norm: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), bent_module(16), nn.Conv2d(16, 8, 3), bent_module(1)]
    model = nn.Sequential(*layers).eval()
    folded = pwlu.fold(model, absorb_batch_norm=absorb_batch_norm, input_size=(3, 20, 20), form="operator")
    network = exported(folded, torch.zeros(2, 3, 20, 20), tmp_path / "network.onnx")
    stored = onnx.load(tmp_path / "network.onnx")
    assert [n.op_type for n in stored.graph.node if n.domain == "pwlu"] == ["folded"] * 2
    for batch in (1, 7):
        x = torch.randn(batch, 3, 20, 20)
        torch.testing.assert_close(run(network, x), model(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "channel_dim", "message"),
    [
        ({1: torch.zeros(4)}, 1, r"`left` must have shape \(3,\).*has shape \(4,\)"),
        ({2: torch.zeros(3, 1)}, 1, r"`interval` must have shape \(3,\).*has shape \(3, 1\)"),
        ({3: torch.zeros(3, 2)}, 1, r"`slopes` must have shape \(G, num_intervals \+ 2\).*shape \(3, 2\)"),
        ({4: torch.zeros(3, 7)}, 1, r"`offsets` must have the shape \(3, 6\).*has \(3, 7\)"),
        ({0: torch.zeros(())}, 1, "`channel_dim` is 1, but x has 0 dimensions"),
        ({}, 2, "has 5 channels in dimension 2, but the parameters are for 3"),
        ({}, 3, "`channel_dim` is 3, but x has 3 dimensions"),
    ],
)
def test_wrong_arguments(change: dict[int, Tensor], channel_dim: int, message: str) -> None:
    arguments = [torch.zeros(2, 3, 5), *folded_tables(3, 4, torch.float32)]
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(Exception, match=f"pwlu: .*{message}"):
        run(session(node(channel_dim=channel_dim)), *arguments)


def test_wrong_nodes() -> None:
    with pytest.raises(Exception, match="channel_dim"):
        session(node())
    with pytest.raises(Exception, match=r"tensor\(double\)' of input parameter \(x\) of operator \(folded\)"):
        session(node(TensorProto.DOUBLE, channel_dim=1))


WITHOUT_TORCH = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
tables = {name: numpy.zeros(shape, "f") for name, shape in zip(
    ("x", "left", "interval", "slopes", "offsets"), ((2, 3), (1,), (1,), (1, 3), (1, 3)))}
print(session.run(None, tables)[0].tolist())
print("torch" in open("/proc/self/maps").read())
"""


def test_needs_no_torch(tmp_path: Path) -> None:
    model = tmp_path / "node.onnx"
    model.write_bytes(node(channel_dim=1).SerializeToString())
    command = ("-c", WITHOUT_TORCH, str(model), pwlu.onnx.custom_op_library())
    assert run_python(*command).stdout == "[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]\nFalse\n"
    unknown = run_python(*command, PWLU_CPU_ISA="unknown")
    assert "PWLU_CPU_ISA is 'unknown', expected one of" in unknown.stderr and unknown.returncode == 1


def test_a_library_that_is_not_built_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="not built. Build it with: PWLU_ONNXRUNTIME_INCLUDE="):
        pwlu.onnx.custom_op_library()


def test_the_import_needs_no_onnxscript() -> None:
    done = run_python(
        "-c",
        "import sys, pwlu.onnx; print({'onnx', 'onnxscript'} & set(sys.modules))",
        PYTHONPATH=str(Path(pwlu.__file__).parents[1]),
    )
    assert done.stdout == "set()\n", done.stderr
