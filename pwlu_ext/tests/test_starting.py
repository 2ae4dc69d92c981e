"""What a PWLU starts as: values, tails and gaps against functions written by hand; what is refused."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pwlu import PWLU, StartingFunction
from pwlu.starting import STARTS
from pwlu_ext.tests.helpers import saved_whole

# By hand, in Python's float64: the function, and the slopes of its tails on [-3.5, 3.5].
BY_HAND: dict[str, tuple[Callable[[float], float], float, float]] = {
    "relu": (lambda x: max(x, 0.0), 0, 1),
    "leaky_relu": (lambda x: x if x > 0 else x / 4, 0.25, 1),
    "silu": (lambda x: x / (1 + math.exp(-x)), 0, 1),
    "gelu": (lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2, 0, 1),
    "hardswish": (lambda x: x * min(max(x + 3, 0.0), 6.0) / 6, 0, 1),
    "relu6": (lambda x: min(max(x, 0.0), 6.0), 0, 1),
    "tanh": (math.tanh, 0, 0),
    "identity": (lambda x: x, 1, 1),
}
NAMED = pytest.mark.parametrize("name", BY_HAND)


def doubles(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_all_names_are_tested() -> None:
    assert [*BY_HAND] == [*STARTS]


@NAMED
@pytest.mark.parametrize("num_intervals", [1, 5, 16])
def test_points_and_tails(name: str, num_intervals: int) -> None:
    """Eq. 6's last two lines, at the start and on boundaries of each function's own."""
    function, left_slope, right_slope = BY_HAND[name]
    module = PWLU(2, num_intervals, 3.5, dtype=torch.float64, init=name)
    for left, right in ((doubles(-3.5, -3.5), doubles(3.5, 3.5)), (doubles(-4, -0.1), doubles(2.5, 5))):
        module.reset_to_start(left, right)
        assert torch.equal(module.left, left) and torch.equal(module.right, right)
        for channel, (b_l, b_r) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            knots = [b_l + i * (b_r - b_l) / num_intervals for i in range(num_intervals + 1)]
            assert module.points[channel].tolist() == pytest.approx([*map(function, knots)], abs=1e-12)
        assert module.left_slope.tolist() == [left_slope] * 2
        assert module.right_slope.tolist() == [right_slope] * 2
    assert f"init={name}" in repr(module) or name == "relu"
    single = PWLU(1, num_intervals, init=name)
    assert single.points.dtype == torch.float32 and single.starting.name == name


def test_relu6_rises_up_to_6() -> None:
    """Its right tail is flat where the boundary is behind the bend only."""
    module = PWLU(3, init="relu6")
    module.reset_to_start(torch.tensor([-3.0, -9.0, -9.0]), torch.tensor([3.0, 9.0, -1.0]))
    assert module.right_slope.tolist() == [1, 0, 0] and module.left_slope.tolist() == [0, 0, 0]


def softsign_squared(x: Tensor) -> Tensor:
    return x / (1 + x.abs()) + 0.1 * x.square()


class Bent(nn.Module):
    """A module with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * self.factor)

    def method(self, x: Tensor) -> Tensor:
        return x.cos() * x


CALLABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "softsign_squared": softsign_squared,
    "Bent": Bent(),
    "method": Bent().method,
    "ELU": nn.ELU(),
    "partial": partial(F.softplus, beta=2.0),
    "leaky_relu": F.leaky_relu,  # called like a named one, but with a slope of its own
    "<lambda>": lambda x: x * x.tanh(),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_callable(name: str) -> None:
    """Points are its values; tails have its slopes at the boundaries, here by finite differences."""
    function, step = CALLABLES[name], 1e-6
    module = PWLU(2, 7, 2.5, dtype=torch.float64, init=function)
    torch.testing.assert_close(module.points[1].detach(), function(torch.linspace(-2.5, 2.5, 8).double()))
    for slope, at in ((module.left_slope, -2.5), (module.right_slope, 2.5)):
        ahead, behind = function(doubles(at + step)), function(doubles(at - step))
        torch.testing.assert_close(
            slope.detach(), ((ahead - behind) / (2 * step)).expand(2), rtol=1e-7, atol=1e-9
        )
    assert module.starting.name == name and f"init={name}" in repr(module)
    assert [*module.modules()] == [module] and module.state_dict().keys() == PWLU(1).state_dict().keys()
    if name != "<lambda>":  # which Python cannot pickle
        torch.testing.assert_close(saved_whole(module).start_gap(), module.start_gap())


@pytest.mark.parametrize(
    "function", [lambda x: x, nn.Identity(), nn.Dropout(0.5).eval()], ids=["lambda", "Identity", "Dropout"]
)
def test_what_returns_its_argument_is_copied(function: Callable[[Tensor], Tensor]) -> None:
    """Or a layer that works in place on the result would change the input too."""
    x = torch.randn(4, 3)
    for init in (function, StartingFunction("own", function)):
        y = PWLU(3, init=init).start(x)
        assert torch.equal(y, x) and y.data_ptr() != x.data_ptr()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("SiLU", "`init` is 'SiLU', expected one of relu, .* did you mean 'silu'"),
        (None, "a name or a callable of one tensor, but is None"),
        (nn.PReLU(), "has parameters, which would not learn"),
        (nn.SiLU(inplace=True), "changes its argument in place"),
        (nn.Hardtanh(-9, 9, inplace=True), "changes its argument in place"),
        (nn.SiLU, "must return a tensor .* but returns SiLU"),
        (lambda x: x.double(), "but returns torch.float64"),
        (StartingFunction("total", torch.sum), r"but returns torch.float32 of shape \(\)"),
        (lambda x: x.to(torch.complex64), "but returns torch.complex64"),
        (nn.GLU(), r"but returns torch.float32 of shape \(6, 8\)"),
        (torch.add, "must take a tensor of any shape, but fails: TypeError"),
        (lambda x: x[:, :, None].squeeze(2) * x.shape[1] / len(x[0]) if x.dim() == 2 else x.t(), "any shape"),
        (nn.Softmax(-1), "each element by itself"),
        (nn.Softmax(0), "each element by itself"),
        (lambda x: x / x.abs().max(), "each element by itself"),
        (lambda x: x - x.mean(), "each element by itself"),
        (nn.Dropout(0.1), "each element by itself, always the same"),
        (nn.RReLU(), "each element by itself, always the same"),
        (lambda x: (x > 0).float(), "no derivative that torch knows"),
        (torch.no_grad()(torch.sin), "no derivative that torch knows"),
        (torch.log, "log, or its slope, is not finite everywhere between the boundaries -3 and 3"),
        (lambda x: torch.exp(x * 100), "not finite everywhere"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,  # no addresses
)
def test_no_starting_function(init: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PWLU(3, init=init)


def test_flat_functions_have_flat_tails() -> None:
    for function in (torch.sign, torch.round):
        module = PWLU(1, init=function)
        assert (module.left_slope.item(), module.right_slope.item()) == (0, 0)


# init_slope


def test_one_slope() -> None:
    for slope in (-0.5, 0, torch.tensor(0.1), torch.tensor(0.1, requires_grad=True)):
        module = PWLU(2, 4, init="leaky_relu", init_slope=slope)
        number = torch.as_tensor(slope).item()
        assert module.init_slope is None and module.left_slope.tolist() == pytest.approx([number] * 2)
        assert f"init=leaky_relu({number:g})" in repr(module)
        expected = F.leaky_relu(torch.linspace(-3, 3, 5), number).expand(2, 5)
        torch.testing.assert_close(module.points.detach(), expected)


@pytest.mark.parametrize("channel_dim", [1, -1])
def test_a_slope_for_each_function(channel_dim: int) -> None:
    """As a PReLU has them; they are the module's own, move with it and go into its state."""
    prelu = nn.PReLU(3)
    prelu.weight.data = torch.tensor([0.1, 2.0, -0.3])
    module = PWLU(3, 4, channel_dim=channel_dim, init="leaky_relu", init_slope=prelu.weight)
    x = torch.randn(2, 3, 5)
    expected = prelu(x)
    ours = module.start(x.transpose(1, channel_dim).contiguous()).transpose(1, channel_dim)
    assert torch.equal(ours, expected)
    torch.testing.assert_close(module.points[:, 0], -3 * prelu.weight)
    assert "init=leaky_relu(-0.3 to 2)" in repr(module)
    prelu.weight.data.zero_()
    assert (
        torch.equal(module.init_slope, torch.tensor([0.1, 2.0, -0.3])) and not module.init_slope.requires_grad
    )
    other = PWLU(3, 4, init="leaky_relu", init_slope=torch.zeros(3))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.start(x), expected)
    assert module.bfloat16().init_slope.dtype == torch.float32
    assert module.double().start(x.double().transpose(1, channel_dim)).dtype == torch.float64


@pytest.mark.parametrize(
    ("init", "slope", "message"),
    [
        ("relu", 0.1, "`init_slope` is for init='leaky_relu' only, but `init` is 'relu'"),
        ("silu", torch.zeros(3), "only, but `init` is 'silu'"),
        ("leaky_relu", math.nan, "`init_slope` must be a finite number .* nan"),
        ("leaky_relu", 1e39, "finite number"),
        ("leaky_relu", [0.1, 0.2, 0.3], "finite number or a tensor"),
        ("leaky_relu", torch.tensor([0.1, math.inf, 0.2]), "leaky_relu, or its slope, is not finite"),
        ("leaky_relu", torch.zeros(2), r"shape \(3,\), but has shape \(2,\)"),
        ("leaky_relu", torch.zeros(3, dtype=torch.int64), "torch.int64"),
    ],
)
def test_no_slope(init: str, slope: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PWLU(3, init=init, init_slope=slope)


# Where there are no numbers


def floored(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.tensor(-1.0))  # which torch.device("meta") makes there


@pytest.mark.parametrize("init", ["relu6", softsign_squared, floored], ids=["named", "callable", "constant"])
def test_without_numbers(init: Any) -> None:
    with torch.device("meta"):
        module = PWLU(2, init=init)
    module.to_empty(device="cpu").reset_parameters()
    assert torch.equal(module.points, PWLU(2, init=init).points)
    with FakeTensorMode():
        assert PWLU(2, init=init).points.shape == (2, 17)
    with torch.inference_mode():
        module.reset_to_start(-torch.ones(2), torch.ones(2))
    assert module.right_slope.tolist() == PWLU(2, bound=1, init=init).right_slope.tolist()


# The gap


def gap_around(means: Tensor, num_intervals: int, name: str) -> float:
    """The largest gap after Eq. 6 over functions whose inputs have these means and a deviation of 1."""
    module = PWLU(len(means), num_intervals, dtype=torch.float64, init=name)
    module.reset_to_start(means - 3, means + 3)
    return module.start_gap().max().item()


@NAMED
def test_gaps_of_the_readme(name: str) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{name}` | 0"))
    anywhere = torch.linspace(-4, 4, 1025, dtype=torch.float64)
    gaps = [gap_around(means, n, name) for means in (doubles(0), anywhere) for n in (16, 8)]
    assert [float(cell) for cell in row.split("|")[2:6]] == pytest.approx(gaps, abs=0.0006)


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(
    name=st.sampled_from(["silu", "gelu", "tanh", "identity"]),
    mean=st.floats(-3, 3),
    std=st.floats(0.05, 4),
    num_intervals=st.integers(1, 20),
)
def test_the_gap_of_a_smooth_function_has_a_bound(
    name: str, mean: float, std: float, num_intervals: int
) -> None:
    """h^2 / 8 max |f''|, for the interval h between two points; f'' by autograd twice, on a fine grid."""
    module = PWLU(1, num_intervals, dtype=torch.float64, init=name)
    module.reset_to_start(doubles(mean - 3 * std), doubles(mean + 3 * std))
    x = torch.linspace(mean - 3 * std, mean + 3 * std, 4001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module.start(x).sum(), x, create_graph=True)
    bend = torch.autograd.grad(slope.sum(), x)[0].abs().max().item() if slope.requires_grad else 0.0
    bound = (6 * std / num_intervals) ** 2 / 8 * bend / std
    gap = module.start_gap().item()
    assert gap <= bound * 1.001 + 1e-12
    if num_intervals >= 12 and std < 1:  # the bound is not an idle one
        assert gap >= bound / 4 - 1e-12
