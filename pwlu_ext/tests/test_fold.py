"""The inference form: its numbers, its edge cases, the copy of the model that `fold` makes."""

import copy
import io
import math
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from pwlu import PWLU, FoldedPWLU, TwoPhaseLearning, fold, pwlu_reference
from pwlu_ext.tests.helpers import (
    DTYPES,
    NAMES,
    Parameters,
    bent_module,
    channel_shape,
    function,
    layer,
    random_parameters,
    spread_inputs,
)
from pwlu_ext.tests.test_properties import functions, inputs, reproducible

INF, NAN = math.inf, math.nan


def assert_folds(parameters: Parameters, x: Tensor, channel_dim: int = 1) -> Tensor:
    """The folded function differs from the reference in float64 by no more than its docstring says."""
    folded = fold(layer(parameters, channel_dim))
    y = folded(x)
    assert y.dtype == x.dtype and y.shape == x.shape
    exact = pwlu_reference(x.double(), *(p.double() for p in parameters), channel_dim=channel_dim)
    groups = parameters[2].shape[0]
    left, steepest, highest = (
        t.abs().double().reshape(channel_shape(x.dim(), groups, channel_dim))
        for t in (folded.left, folded.slopes.abs().amax(1), folded.offsets.abs().amax(1))
    )
    bound = 4 * torch.finfo(folded.slopes.dtype).eps * ((x.double().abs() + left) * steepest + highest)
    rounding = 0.505 * torch.finfo(x.dtype).eps * exact.abs()
    assert ((y.double() - exact).abs() <= bound + rounding).all()
    return y


# The function


def test_tables_are_those_of_section_4_3() -> None:
    folded = fold(layer(function(-1.0, 1.0, [0.0, 1.0, 3.0], 0.5, -2.0)))
    assert folded.left.tolist() == [-1.0] and folded.interval.tolist() == [1.0]
    assert folded.slopes.tolist() == [[0.5, 1.0, 2.0, -2.0]]
    assert folded.offsets.tolist() == [[0.5, 1.0, 1.0, 5.0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("num_intervals", [1, 5, 16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_equals_the_reference(
    dtype: torch.dtype, groups: int, num_intervals: int, memory_format: torch.memory_format
) -> None:
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(groups, num_intervals, kept)
    x = spread_inputs((4, 3, 8, 3), parameters, dtype=dtype).contiguous(memory_format=memory_format)
    assert_folds(parameters, x)


@reproducible
@given(functions(min_width=-4.0), inputs)
def test_equals_the_reference_for_any_function(parameters: Parameters, x: Tensor) -> None:
    """Also where the boundaries meet or cross."""
    assert_folds(parameters, x)
    assert_folds(tuple(p.float() for p in parameters), x.float())


# NaN, infinities, boundaries that meet or cross


@pytest.mark.parametrize("right", [1.0, 0.0, -5.0])
def test_collapsed_function_is_its_two_tails(right: float) -> None:
    parameters = function(1.0, right, [3.0, 9.0, 4.0], 0.5, -2.0)
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    y = assert_folds(parameters, torch.tensor([-4.0, 0.0, below, 1.0, 2.0, 30.0]))
    assert y[2].item() == pytest.approx(3.0) and y[3].item() == 4 + (1 - right) * -2


def test_collapsed_at_0_tells_the_smallest_numbers_apart() -> None:
    folded = fold(layer(function(0.0, -1.0, [2.0, 5.0, 3.0], 0.0, 0.0)))
    assert folded(torch.tensor([-1e-45, -0.0, 0.0, 1e-45])).tolist() == [2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("left", "right", "right_slope"), [(-3e38, 3e38, 0.0), (0.0, 1e-45, 0.5), (0.0, 1e-39, 0.5)]
)
def test_intervals_that_are_no_numbers_are_collapsed(left: float, right: float, right_slope: float) -> None:
    """As the reference has them in float32: B_R - B_L or 1 / d is not finite."""
    parameters = function(left, right, [2.0, 3.0, 1.0], 0.0, right_slope)
    x = torch.tensor([-INF, -1.0, left, right / 3, right, 1.0])
    torch.testing.assert_close(fold(layer(parameters))(x), pwlu_reference(x, *parameters))


# The module


def test_gradient_with_respect_to_x_is_the_slope() -> None:
    parameters = random_parameters(3, 5, torch.float64)
    x = spread_inputs((2, 3, 20), parameters, dtype=torch.float64).requires_grad_()
    folded = fold(layer(parameters))
    (actual,) = torch.autograd.grad(folded(x).sum(), x)
    (expected,) = torch.autograd.grad(pwlu_reference(x, *parameters).sum(), x)
    torch.testing.assert_close(actual, expected)
    derivative = torch.vmap(torch.func.grad(lambda row: folded(row[None]).sum()))(x)
    torch.testing.assert_close(derivative, expected)


def test_only_a_cast_to_float64_changes_the_tables() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), fold(bent_module()))
    for dtype in (torch.float16, torch.bfloat16):
        low = copy.deepcopy(network).to(dtype)
        assert all(buffer.dtype == torch.float32 for buffer in low[1].buffers())
        assert low(torch.randn(2, 2, 4, 4).to(dtype)).dtype == dtype
    assert all(buffer.dtype == torch.float64 for buffer in network.double()[1].buffers())


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph(dynamic: bool) -> None:
    torch._dynamo.reset()
    folded = fold(bent_module())
    compiled = torch.compile(folded, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((2, 3, 4, 6), (5, 3, 8, 2)):
        x = spread_inputs(shape, random_parameters(3, 5)).requires_grad_()
        results = [(y := network(x), *torch.autograd.grad(y.sum(), x)) for network in (compiled, folded)]
        for actual, expected in zip(*results, strict=True):
            assert torch.equal(actual, expected)


# The copy of a model


class Network(nn.Module):
    """PWLUs that are nested, tied (`act` and `again`), and of either kind."""

    def __init__(self) -> None:
        super().__init__()
        self.act = bent_module(4)
        self.blocks = nn.Sequential(nn.Conv2d(2, 4, 1), self.act, nn.Dropout(), nn.Conv2d(4, 4, 1))
        self.again = self.act
        self.last = nn.ModuleDict({"act": bent_module(1, 8)})

    def forward(self, x: Tensor) -> Tensor:
        return self.last["act"](self.again(self.blocks(x)))


def test_fold_replaces_every_pwlu_of_a_copy() -> None:
    torch.manual_seed(0)
    model, x = Network(), torch.randn(3, 2, 5, 5)
    handle = model.act.register_forward_hook(lambda module, args, y: y)
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    assert not any(isinstance(module, PWLU) for module in folded.modules())
    assert isinstance(folded.act, FoldedPWLU) and folded.act is folded.again is folded.blocks[1]
    assert not any(module.training for module in folded.modules())
    assert all(module.training for module in model.modules())
    assert handle.id in model.act._forward_hooks and type(model.last["act"]) is PWLU
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(folded(x), model.eval()(x))
    with torch.no_grad():
        folded.blocks[0].weight.zero_()
    assert model.blocks[0].weight.all()


def test_a_model_in_phase_1_folds_to_relu_without_phases() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), bent_module(4, 8))
    TwoPhaseLearning(model, 3)
    model(torch.randn(2, 2, 3, 3))
    folded, x = fold(model), torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(folded(x), model[0](x).relu())
    assert set(folded[1].state_dict()) == {"left", "interval", "slopes", "offsets"}
    assert model[1].statistics is not None and model[1].statistics.count == 2 * 3 * 3


@pytest.mark.parametrize(
    ("name", "operator"),
    [("operator", torch.ops.pwlu.folded.default), ("in_place", torch.ops.pwlu.folded_.default)],
)
def test_operators_are_recorded(name: str, operator: torch._ops.OpOverload, tmp_path: Path) -> None:
    """torch.export and torch.jit.trace, for another batch size than that of the example."""
    form = fold(nn.Sequential(nn.Linear(3, 5), bent_module(5)), form=name)
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(form, (torch.randn(2, 3),), dynamic_shapes=free)
    assert operator in {node.target for node in program.graph.nodes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(form, torch.randn(2, 3))
    assert "pwlu::folded" in {node.kind() for node in traced.inlined_graph.nodes()}
    torch.export.save(program, tmp_path / "form.pt2")
    x = torch.randn(7, 3)
    for recorded in (torch.export.load(tmp_path / "form.pt2").module(), traced):
        torch.testing.assert_close(recorded(x), form(x))


def test_saves_and_loads() -> None:
    torch.manual_seed(0)
    trained, x = fold(Network()), torch.randn(3, 2, 5, 5)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh = fold(nn.Sequential(Network()))[0]
    with torch.no_grad():
        fresh.act.slopes.zero_()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for twin in (fresh, copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert torch.equal(twin(x), trained(x))
        assert twin.act is twin.again


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.ReLU()), "nothing to fold: Sequential has no PWLU"),
        (fold(PWLU(1)), "nothing to fold: FoldedPWLU has no PWLU"),
        (
            nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel),
            "model is wrapped in DistributedDataParallel: fold model.module instead",
        ),
    ],
)
def test_models_that_cannot_be_folded(model: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fold(model)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [NAN, INF])
def test_parameters_that_are_no_numbers_are_an_error(name: str, value: float) -> None:
    model = nn.Sequential(nn.Identity(), bent_module())
    with torch.no_grad():
        getattr(model[1], name)[1] = value
    with pytest.raises(ValueError, match="PWLU '1' cannot be folded: its parameters.* are not finite"):
        fold(model)
