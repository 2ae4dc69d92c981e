"""PWLUs as tables of 256 codes in a network that onnxruntime has quantised."""

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pwlu

from .networks import pwlus

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")

quantized = importlib.import_module("pwlu.onnx.quantized")  # needs onnx and onnxruntime
quantization_options, tabulate = quantized.quantization_options, quantized.tabulate

FREE = torch.export.Dim.DYNAMIC
TYPES = {np.uint8: quantization.QuantType.QUInt8, np.int8: quantization.QuantType.QInt8}
each_form_and_dtype = pytest.mark.parametrize(
    ("form", "dtype"),
    [("table", np.uint8), ("table", np.int8), ("hinges", np.uint8), ("convolutions", np.int8)],
)


class Residual(nn.Module):
    """PWLUs before a MaxPool, a shortcut and its sum, squeeze and excitation, a mean; one layer-wise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), pwlu.PWLU(6)
        self.conv, self.act2 = nn.Conv2d(6, 6, 3, padding=1), pwlu.PWLU(1)
        self.reduce, self.act3, self.expand = nn.Conv2d(6, 2, 1), pwlu.PWLU(2), nn.Conv2d(2, 6, 1)
        self.act4, self.head = pwlu.PWLU(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.act1(self.norm(self.stem(x))), 2)
        x = self.act2(self.conv(x) + x)
        gate = self.expand(self.act3(self.reduce(x.mean((2, 3), keepdim=True))))
        return self.head(self.act4(x * torch.sigmoid(gate)).mean((2, 3)))


def bent(model: nn.Module) -> nn.Module:
    """The model in eval mode, with PWLUs that are no ReLUs."""
    with torch.no_grad():
        for site in pwlus(model):
            site.points += 0.3 * torch.randn_like(site.points)
    return model.eval()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return bent(Residual())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, 3, 12, 12), dtype=np.float32)


class Batches(quantization.CalibrationDataReader):
    def __init__(self, name: str, images: np.ndarray) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([{name: images[:4]}, {name: images[4:]}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def exported(model: nn.Module, x: Tensor, *free: int) -> Any:
    """The ONNX model of the folded `model`; sizes of the dimensions `free` are free."""
    shapes = ({axis: FREE for axis in free},)
    program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    return program.model_proto


def exported_network(model: nn.Module, form: str = "table") -> Any:
    return exported(pwlu.fold(model, form=form), torch.randn(2, 3, 12, 12), 0)


def quantized(model: Any, images: np.ndarray, folder: Path, **options: Any) -> Any:
    path = folder / "quantized.onnx"
    batches = Batches(model.graph.input[0].name, images)
    quantization.quantize_static(model, path, batches, per_channel=True, **options)
    return onnx.load(path)


def between_codes(model: Any, dtype: type, scales: tuple[float, float], zeros: tuple[int, int]) -> Any:
    """The model with codes of `dtype` as input and output, of these scales and zero points."""
    graph, code_type = model.graph, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = graph.input[0].name, graph.output[0].name
    for role, scale, zero in zip("xy", scales, zeros, strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(scale), f"{role}_scale"))
        graph.initializer.append(onnx.numpy_helper.from_array(dtype(zero), f"{role}_zero"))
    make = onnx.helper.make_node
    graph.node.insert(0, make("DequantizeLinear", ["codes", "x_scale", "x_zero"], [x]))
    graph.node.append(make("QuantizeLinear", [y, "y_scale", "y_zero"], ["result"]))
    for info, name in ((graph.input[0], "codes"), (graph.output[0], "result")):
        info.name, info.type.tensor_type.elem_type = name, code_type
    return model


def run(model: Any, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    return y


def operators(model: Any) -> list[str]:
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    return [node.op_type for node in model.graph.node]


@each_form_and_dtype
def test_a_network_computes_the_same_bits(
    form: str, dtype: type, network: nn.Module, images: np.ndarray, tmp_path: Path
) -> None:
    floating = exported_network(network, form)
    model = quantized(
        floating, images, tmp_path, activation_type=TYPES[dtype], **quantization_options(floating)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = tabulate(model)
    assert operators(tables).count("GatherElements") == 4
    assert not {"Floor", "Sub", "Relu"} & {*operators(tables)}
    for batch in (images, images[:1], images[2:5]):
        expected = run(model, batch)
        assert len(np.unique(expected)) > len(batch)
        np.testing.assert_array_equal(run(tables, batch), expected)
    assert model == onnx.load(tmp_path / "quantized.onnx")  # the argument stays what it was


def test_by_hand() -> None:
    """|x| in one channel, min(x, 0) / 2 in the other."""
    module = pwlu.PWLU(2, num_intervals=2, bound=1.0)
    with torch.no_grad():
        module.points.copy_(torch.tensor([[1.0, 0.0, 1.0], [-0.5, 0.0, 0.0]]))
        module.left_slope.copy_(torch.tensor([-1.0, 0.5]))
        module.right_slope.copy_(torch.tensor([1.0, 0.0]))
    model = between_codes(exported(pwlu.fold(module), torch.zeros(2, 2), 0), np.uint8, (0.5, 0.25), (100, 20))
    codes = np.array([[0, 0], [98, 98], [99, 99], [100, 100], [101, 101], [217, 217], [218, 218]], np.uint8)
    expected = [[220, 0], [24, 18], [22, 19], [20, 20], [22, 20], [254, 20], [255, 20]]
    np.testing.assert_array_equal(run(tabulate(model), codes), np.array(expected, np.uint8))


@each_form_and_dtype
@pytest.mark.parametrize(("groups", "channel_dim", "free"), [(3, 1, (0,)), (3, -1, (0, 1)), (1, 1, (0, 2))])
def test_every_code_in_every_channel(
    form: str, dtype: type, groups: int, channel_dim: int, free: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    module = bent(pwlu.PWLU(groups, channel_dim=channel_dim))
    folded = pwlu.fold(module, form=form)
    zeros = (130, 90) if dtype is np.uint8 else (3, -20)
    model = between_codes(exported(folded, torch.zeros(2, 3, 3), *free), dtype, (0.03, 0.02), zeros)
    tables = tabulate(model)
    assert "GatherElements" in operators(tables) and "DequantizeLinear" not in operators(tables)
    codes = np.arange(256).astype(np.uint8).view(dtype)[:, None, None].repeat(3, 1).repeat(3, 2)
    y = run(tables, codes)
    np.testing.assert_array_equal(y, run(model, codes))
    assert len(np.unique(y)) > 50
    with torch.no_grad():
        exact = folded(torch.from_numpy(np.float32(0.03) * (codes.astype(np.float32) - zeros[0])))
    limits = np.iinfo(dtype)
    assert np.abs(y - (exact.numpy() / 0.02 + zeros[1]).clip(limits.min, limits.max)).max() < 0.5 + 1e-3


def test_the_input_and_the_function_in_floating_point_may_have_other_readers() -> None:
    model = between_codes(
        exported(bent(pwlu.fold(pwlu.PWLU(3))), torch.zeros(2, 3), 0), np.int8, (1, 1), (0, 0)
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("float", onnx.TensorProto.FLOAT, None))
    model.graph.node.append(onnx.helper.make_node("Neg", [model.graph.node[-1].input[0]], ["float"]))
    with pytest.warns(UserWarning, match="stay in floating point"):
        tables = tabulate(model)
    assert {"GatherElements", "Floor"} <= {*operators(tables)}


def test_what_stays_in_floating_point_is_named(
    network: nn.Module, images: np.ndarray, tmp_path: Path
) -> None:
    """Before a MaxPool or a mean, as onnxruntime does not quantise these by itself."""
    floating = exported_network(network)
    excluded = quantization_options(floating)["nodes_to_exclude"]
    model = quantized(floating, images, tmp_path, nodes_to_exclude=excluded)
    with pytest.warns(UserWarning, match=r"\['act1', 'act4'\] stay.*quantization_options"):
        tables = tabulate(model)
    np.testing.assert_array_equal(run(tables, images), run(model, images))


def test_a_function_of_neighbours_is_no_table() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = pwlu.PWLU(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x - x.mean(2, keepdim=True))

    floating = exported(pwlu.fold(Difference()), torch.zeros(2, 3, 4), 0, 2)
    with pytest.raises(ValueError, match="no PWLU is between two 8-bit tensors"):
        tabulate(between_codes(floating, np.uint8, (0.1, 0.1), (0, 0)))


def test_errors_say_what_to_do(network: nn.Module, images: np.ndarray, tmp_path: Path) -> None:
    floating = exported_network(network)
    with pytest.raises(ValueError, match=r"no PWLU is between .*quantization_options\(model\)"):
        tabulate(floating)
    with pytest.raises(ValueError, match=r"no PWLU is between .*QuantFormat\.QDQ"):
        options = quantization_options(floating) | {"quant_format": quantization.QuantFormat.QOperator}
        tabulate(quantized(floating, images, tmp_path, **options))
    other = exported(nn.ReLU().eval(), torch.zeros(2, 3))
    for function in (quantization_options, tabulate):
        with pytest.raises(ValueError, match=r"no node .* of a PWLU: export pwlu\.fold\(model\)"):
            function(other)
