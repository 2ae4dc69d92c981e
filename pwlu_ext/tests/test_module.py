"""The layer: how it starts, moves, is copied and saved, and that it learns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pwlu import PWLU, TwoPhaseLearning, fold
from pwlu_ext.tests.helpers import NAMES, bent_module

INPUTS = torch.linspace(-8, 8, 1601)


def test_parameters_and_buffers() -> None:
    module = PWLU(5, num_intervals=8)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {"left": (5,), "right": (5,), "left_slope": (5,), "right_slope": (5,), "points": (5, 9)}
    assert {name: tuple(b.shape) for name, b in module.named_buffers()} == {
        "running_mean": (5,),
        "running_std": (5,),
    }
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    assert (module.num_parameters, module.num_intervals, module.bound, module.channel_dim) == (5, 8, 3.0, 1)


@pytest.mark.parametrize("bound", [3, 0.5, 10.0])
@pytest.mark.parametrize("num_intervals", [2, 4, 8, 12, 16, 20, 64])
def test_starts_as_relu(num_intervals: int, bound: float) -> None:
    module = PWLU(1, num_intervals, bound)
    torch.testing.assert_close(module(INPUTS), INPUTS.relu(), rtol=1e-6, atol=1e-6 * bound)
    assert module.left.item() == -bound and module.right.item() == bound
    assert module.left_slope.item() == 0 and module.right_slope.item() == 1


@pytest.mark.parametrize("num_intervals", [1, 3, 5, 15])
def test_odd_number_of_intervals_leaves_a_small_gap(num_intervals: int) -> None:
    """No knot is at 0, so that the interval around 0 rises to the next knot in a straight line."""
    module = PWLU(1, num_intervals)
    half = 3 / num_intervals
    expected = torch.where(INPUTS.abs() < half, (INPUTS + half) / 2, INPUTS.relu())
    torch.testing.assert_close(module(INPUTS), expected, rtol=1e-6, atol=1e-6)


def test_reset_parameters_starts_anew() -> None:
    module = bent_module(2, 4)
    module.running_mean.fill_(1)
    module.running_std.fill_(1)
    module.reset_parameters()
    fresh = PWLU(2, 4)
    for (name, value), expected in zip(module.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    "cast",
    [
        nn.Module.half,
        nn.Module.bfloat16,
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("phase_1", [False, True])
def test_parameters_stay_float32_under_low_precision(
    cast: Callable[[nn.Module], nn.Module], phase_1: bool
) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), bent_module(3, 5))
    if phase_1:
        TwoPhaseLearning(network, 1)
    network = cast(network)
    low = network[0].weight.dtype
    assert low in (torch.float16, torch.bfloat16)
    assert all(t.dtype == torch.float32 for t in (*network[1].parameters(), *network[1].buffers()))
    y = network(torch.randn(2, 2, 4, 4).to(low))
    assert y.dtype == low and y.isfinite().all()


def test_double() -> None:
    module = PWLU(2, 4)
    TwoPhaseLearning(module, 1)
    module.double()
    x = torch.randn(3, 2, dtype=torch.float64)
    assert module(x).dtype == torch.float64
    assert module.statistics.mean.dtype == torch.float64
    assert PWLU(2, dtype=torch.float64).points.dtype == torch.float64


@pytest.mark.gpu
def test_moves_to_the_gpu_and_back() -> None:
    module = bent_module(3, 5)
    x = torch.randn(2, 3, 4)
    y = module(x)
    torch.testing.assert_close(module.cuda()(x.cuda()).cpu(), y)
    assert torch.equal(module.cpu()(x), y)


@pytest.mark.parametrize("phase_1", [False, True])
def test_state_dict_round_trip(phase_1: bool) -> None:
    module, x = bent_module(2, 4), torch.randn(3, 2)
    if phase_1:
        TwoPhaseLearning(module, 3)
        module(x)
    state = module.eval().state_dict()
    assert [*state] == [*NAMES[:2], *NAMES[3:], "points", "running_mean", "running_std"]
    other = PWLU(2, 4).eval()
    other.load_state_dict(state)
    # In phase I the module computes ReLU itself, the other one what the parameters say.
    torch.testing.assert_close(other(x), module(x))


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), bent_module(3, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("make", [small_network, lambda: fold(small_network())], ids=["PWLU", "FoldedPWLU"])
@pytest.mark.parametrize("start", ["float32", "meta"])
def test_a_state_dict_of_low_precision_is_assigned_as_float32(
    make: Callable[[], nn.Module], start: str, dtype: torch.dtype
) -> None:
    """Rounded to the state's precision, with gradients where they were; the caller's dict stays as it is."""
    low = {name: value.to(dtype) for name, value in make().state_dict().items()}
    dtypes = [value.dtype for value in low.values()]
    network = make().to("meta") if start == "meta" else make()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.endswith("left"))
    network.load_state_dict(low, assign=True)
    assert [value.dtype for value in low.values()] == dtypes
    for name, value in network[1].state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, low[f"1.{name}"].float())
    for name, parameter in network[1].named_parameters():
        assert parameter.requires_grad == (name != "left") and parameter.is_leaf
    assert network[1](torch.randn(2, 3, 4, 4).bfloat16()).dtype == torch.bfloat16
    network.load_state_dict({"1.left": low["1.left"]}, strict=False, assign=True)
    assert network[1].left.dtype == torch.float32


def test_learned_starting_slopes_come_with_a_state_dict() -> None:
    slopes = torch.tensor([0.1, -0.3, 0.5])
    saved = PWLU(3, init="leaky_relu", init_slope=slopes)
    plain = PWLU(3)
    plain.load_state_dict(saved.state_dict())
    x = INPUTS[:, None].expand(-1, 3)
    assert torch.equal(plain.start(x), torch.where(x > 0, x, slopes * x))
    plain.reset_parameters()
    assert all(map(torch.equal, plain.state_dict().values(), saved.state_dict().values()))
    with pytest.raises(RuntimeError, match="init_slope"):
        saved.load_state_dict(PWLU(3).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch|init_slope"):
        PWLU(1).load_state_dict(saved.state_dict())


def test_a_state_dict_of_float64_is_assigned_as_such() -> None:
    network = small_network()
    double = {name: value.double() for name, value in network.state_dict().items()}
    network.load_state_dict(double, assign=True)
    assert network(torch.randn(2, 2, 4, 4).double()).dtype == torch.float64
    network.load_state_dict({name: value.half() for name, value in double.items()}, assign=True)
    assert network[1].points.dtype == torch.float64 and network[0].weight.dtype == torch.float16
    with pytest.raises(RuntimeError, match="size mismatch for left"):
        PWLU(2, 5).load_state_dict(PWLU(3, 5).bfloat16().state_dict(), assign=True)


TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "sine": torch.sin,
    "swish": nn.functional.silu,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_learns_a_function(target: str, optimizer: str) -> None:
    """By the gradients of all its parameters, ReLU becomes another function of one variable."""
    generator = torch.Generator().manual_seed(0)
    module = PWLU(1, num_intervals=8)
    make = {"sgd": (torch.optim.SGD, {"lr": 0.2, "momentum": 0.9}), "adam": (torch.optim.Adam, {"lr": 0.05})}
    learner = make[optimizer][0](module.parameters(), **make[optimizer][1])
    start = [p.detach().clone() for p in module.parameters()]

    def loss(x: Tensor) -> Tensor:
        return (module(x) - TARGETS[target](x)).square().mean()

    probe = torch.linspace(-3.5, 3.5, 701)
    before = loss(probe).item()
    for _ in range(200):
        learner.zero_grad()
        loss(1.5 * torch.randn(256, generator=generator)).backward()
        learner.step()
    assert loss(probe).item() < 0.05 * before
    moved = [not torch.equal(p, s) for p, s in zip(module.parameters(), start, strict=True)]
    assert all(moved)
