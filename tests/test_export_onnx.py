"""A folded model leaves PyTorch: ONNX with standard operators only, checked with onnxruntime."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pwlu
from pwlu_ext.tests.networks import Hiding
from tests.perturbed_classifiers import CLASSIFIERS, perturbed_classifier, photographs


def exported(model: nn.Module, example: Tensor, path: Path) -> onnxruntime.InferenceSession:
    """Export with a free batch size; refuse operators that are not ONNX's own."""
    free_batch = ({0: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=free_batch, verbose=False)
    program.save(path)
    return session_of(path)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    stored = onnx.load(path)
    onnx.checker.check_model(stored)
    used = {node.domain for node in stored.graph.node} | {opset.domain for opset in stored.opset_import}
    assert used <= {"", "ai.onnx"} and not stored.functions
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, x: Tensor) -> Tensor:
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(np.asarray(y))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_onnxruntime_computes_what_was_trained(name: str, tmp_path: Path) -> None:
    model, images = perturbed_classifier(name), photographs("val", 12)
    folded = pwlu.fold(model, absorb_batch_norm=True, input_size=images.shape[1:])
    session = exported(folded, images[:2], tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(images)
    for batch in (slice(0, 12), slice(3, 4), slice(5, 10)):
        actual = run(session, images[batch])
        torch.testing.assert_close(actual, expected[batch], rtol=0, atol=1e-4)
        assert torch.equal(actual.argmax(1), expected[batch].argmax(1))


def test_edge_cases(tmp_path: Path) -> None:
    """NaN, infinities on steep and flat tails, and a function whose boundaries have crossed."""
    module = pwlu.PWLU(3, num_intervals=4)
    with torch.no_grad():
        module.left_slope[1], module.right_slope[0] = 0.5, 0
        module.right[2] = -4.0
    folded = pwlu.fold(module)
    session = exported(folded, torch.zeros(2, 3), tmp_path / "module.onnx")
    values = [math.nan, math.inf, -math.inf, -3.0, -3.5, -0.0, 1.7, 3.0, 1e38]
    x = torch.tensor(values)[:, None].expand(-1, 3).contiguous()
    torch.testing.assert_close(run(session, x), folded(x), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX:DeprecationWarning")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_exporter_that_traces(grad: bool, groups: int, tmp_path: Path) -> None:
    """torch.onnx.export(dynamo=False), for another batch and image size than it was traced with."""
    torch.manual_seed(0)
    folded = pwlu.fold(nn.Sequential(nn.Conv2d(3, 3, 3), pwlu.PWLU(groups)))
    with torch.set_grad_enabled(grad):
        torch.onnx.export(
            folded,
            (torch.randn(1, 3, 8, 8),),
            tmp_path / "model.onnx",
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
        )
    x = torch.randn(4, 3, 7, 9)
    torch.testing.assert_close(run(session_of(tmp_path / "model.onnx"), x), folded(x).detach())


@pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:pwlu. the operator pwlu..forward is recorded")
@pytest.mark.parametrize("model", [pwlu.PWLU(3).eval(), pwlu.fold(Hiding())], ids=["unfolded", "one hidden"])
def test_a_network_that_is_not_folded_is_an_error_that_says_so(model: nn.Module, tmp_path: Path) -> None:
    x, path = torch.randn(2, 3, 4), tmp_path / "model.onnx"
    program = torch.export.export(model, (x,))
    for export in (
        lambda: torch.onnx.export(model, (x,), path, dynamo=False),
        lambda: torch.onnx.export(model, (x,), path, dynamo=True, verbose=False),
        lambda: torch.onnx.export(program, f=path, dynamo=True, verbose=False),
    ):
        with pytest.raises(Exception, match=r"no operator for a PWLU.*pwlu\.fold\(model\)"):
            export()
    assert not path.exists()
