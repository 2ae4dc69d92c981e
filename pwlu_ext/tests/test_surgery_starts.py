"""PWLUs that start as the activations that they replace: the network computes what it computed."""

import copy
import re
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.layers import activations, activations_me
from timm.models import metaformer, nfnet
from torch import Tensor, nn

from pwlu import PWLU, TwoPhaseLearning, fold, replace_activations
from pwlu_ext.tests.helpers import saved_whole
from pwlu_ext.tests.networks import conv_net, small

Make = Callable[[], nn.Module]

# What makes the activation, what the report says, the slopes far away on the left and on the right.
KINDS: list[tuple[Make, str, float, float]] = [
    (partial(nn.ReLU, inplace=True), "relu", 0, 1),
    (partial(nn.ReLU6, inplace=True), "relu6", 0, 0),
    (partial(nn.SiLU, inplace=True), "silu", 0, 1),
    (partial(nn.Hardswish, inplace=True), "hardswish", 0, 1),
    (nn.GELU, "gelu", 0, 1),
    (partial(nn.GELU, approximate="tanh"), "GELU(approximate='tanh')", 0, 1),
    (partial(nn.LeakyReLU, 0.03, inplace=True), "leaky_relu(0.03)", 0.03, 1),
    (partial(nn.PReLU, init=-0.5), "leaky_relu(-0.5)", -0.5, 1),
    (partial(nn.RReLU, 0.1, 0.4), "leaky_relu(0.25)", 0.25, 1),
    (partial(nn.ELU, 0.7, inplace=True), "ELU(alpha=0.7)", 0, 1),
    (partial(nn.CELU, 1.3, inplace=True), "CELU(alpha=1.3)", 0, 1),
    (partial(nn.SELU, inplace=True), "SELU", 0, 1.0507009873554805),
    (partial(nn.Mish, inplace=True), "Mish", 0, 1),
    (partial(nn.Softplus, 2.0, 5.0), "Softplus(beta=2.0, threshold=5.0)", 0, 1),
    (activations.Swish, "silu", 0, 1),
    (activations_me.SwishMe, "silu", 0, 1),
    (partial(activations.HardSwish, inplace=True), "hardswish", 0, 1),
    (activations_me.HardSwishMe, "hardswish", 0, 1),
    (activations.Mish, "Mish", 0, 1),
    (activations_me.MishMe, "MishMe", 0, 1),
    (partial(activations.HardMish, inplace=True), "HardMish", 0, 1),
    (activations_me.HardMishMe, "HardMishMe", 0, 1),
    (activations.GELU, "gelu", 0, 1),
    (activations.GELUTanh, "GELUTanh", 0, 1),
    (activations.QuickGELU, "QuickGELU", 0, 1),
    (activations.PReLU, "leaky_relu(0.25)", 0.25, 1),
    (partial(metaformer.SquaredReLU, inplace=True), "SquaredReLU", 0, 14),  # the slope at the boundary 7
    (partial(nfnet.GammaAct, "silu", 1.7, inplace=True), "GammaAct", 0, 1.7),
    (partial(nfnet.GammaAct, "leaky_relu", 2.0), "GammaAct", 0.02, 2),
]
BY_OTHER_FORMULAS = ("Swish", "SwishMe", "HardSwish", "HardSwishMe")
IDS = [f"{make().__class__.__module__.split('.')[0]}-{make()!r}" for make, *_ in KINDS]
EVERY_KIND = pytest.mark.parametrize(("make", "name", "left", "right"), KINDS, ids=IDS)


def converted(model: nn.Module, **options: object) -> nn.Module:
    """A copy of `model` whose PWLUs start as its activations, in phase I."""
    model = copy.deepcopy(model)
    small(model, init="replaced", **options)
    TwoPhaseLearning(model, 1)
    return model


def network(*activations: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return conv_net(*activations).to(dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return 4 * torch.randn(5, 3, 6, 7, generator=torch.Generator().manual_seed(1)).to(dtype)


def outputs_and_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    y = model(x.clone())
    weights = [module.weight for module in model if isinstance(module, nn.Conv2d)]
    return [y, *torch.autograd.grad(y.square().mean(), weights)]


@EVERY_KIND
def test_phase_1_computes_what_was_there(make: Make, name: str, left: float, right: float) -> None:
    """To the bit where it is the same function of torch; in training and evaluation mode, saved or not."""
    assert_computes_what_was_there(make, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [make for make, *_ in KINDS[1::3]], ids=IDS[1::3])
def test_phase_1_in_other_precision(make: Make, dtype: torch.dtype) -> None:
    assert_computes_what_was_there(make, dtype)


def assert_computes_what_was_there(make: Make, dtype: torch.dtype) -> None:
    model = network(make(), make(), dtype=dtype).eval()
    expected = outputs_and_gradients(model, images(dtype))
    after = converted(model)
    again = saved_whole(after)
    TwoPhaseLearning(again, 1)
    for started in (after, again.train()):
        actual = outputs_and_gradients(started, images(dtype))
        if type(make()).__name__ in BY_OTHER_FORMULAS:
            tolerance = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 0.03}[dtype]
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
        else:
            assert torch.equal(actual[0], expected[0])
            # torch computes gradients of what is computed in place from the rounded result.
            tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(actual[1:], expected[1:], rtol=tolerance, atol=tolerance)


@EVERY_KIND
def test_what_it_starts_as_is_named_and_its_tails_are_the_asymptotes(
    make: Make, name: str, left: float, right: float
) -> None:
    model = network(make())
    report = small(model, init="replaced", make=partial(PWLU, bound=7.0))  # ReLU6 rises up to 6
    assert report.sites[0].starts_as == name and name in str(report)
    torch.testing.assert_close(model[1].left_slope, torch.full((4,), float(left)))
    torch.testing.assert_close(model[1].right_slope, torch.full((4,), float(right)))
    if name != "SquaredReLU":  # by a difference quotient far away
        x = torch.tensor([[-300.0, 300.0], [-299.0, 301.0]], dtype=torch.float64)
        y = make().double().eval()(x.clone())
        torch.testing.assert_close(y[1] - y[0], torch.tensor([left, right], dtype=torch.float64))
    knots = torch.linspace(-7, 7, 17)
    torch.testing.assert_close(model[1].points[0], make().eval()(knots.clone()))


# PReLU


def with_slopes(count: int) -> nn.PReLU:
    prelu = nn.PReLU(count)
    prelu.weight.data = torch.linspace(-0.5, 1.5, count)
    return prelu


def test_learned_slopes_of_every_channel_are_in_the_state_dict() -> None:
    model = network(with_slopes(4), with_slopes(1), nn.PReLU(6))
    after = converted(model)
    assert torch.equal(after(images()), model(images()))
    fresh = network(nn.PReLU(4), nn.PReLU(), nn.PReLU(6))
    report = small(fresh, init="replaced")
    assert [site.starts_as for site in report.sites] == ["leaky_relu(0.25)"] * 3
    fresh.load_state_dict(after.state_dict())
    TwoPhaseLearning(fresh, 1)
    assert torch.equal(fresh(images()), model(images()))
    assert fresh[1].init_slope.tolist() == model[1].weight.tolist()


def layer_wise(num_channels: int, **options: object) -> PWLU:
    return PWLU(1, **options)


def test_one_function_cannot_start_with_many_slopes() -> None:
    model = network(nn.ReLU(), with_slopes(5))
    with pytest.raises(ValueError, match=r"site '3'.*PReLU has 5 different slopes.*channel-wise"):
        converted(model, make=layer_wise)
    for prelu in (with_slopes(1), nn.PReLU(5, init=0.1)):  # one slope, or as many alike
        model = network(nn.ReLU(), prelu)
        assert torch.equal(converted(model, make=layer_wise)(images()), model(images()))


def test_slopes_along_another_dimension_than_the_channels_are_kept() -> None:
    """F.prelu has them along dimension 1, here the tokens."""
    model = nn.Sequential(nn.Linear(3, 4), with_slopes(6), nn.Linear(4, 4), nn.PReLU(6))
    report = replace_activations(model, input_size=(6, 3), init="replaced")
    assert [site.replaced for site in report.sites] == [False, True] and model[3].channel_dim == -1
    assert report.sites[0].reason == "has slopes for dimension 1, but channels in dimension -1"
    model = nn.Sequential(nn.Conv1d(3, 4, 1), with_slopes(4))
    report = replace_activations(model, input_size=(3, 6), init="replaced", channel_dim=-2)
    assert report.sites[0].replaced


def test_a_slope_that_is_a_tensor() -> None:
    model = network(nn.LeakyReLU(torch.tensor(0.2)))
    assert torch.equal(converted(model)(images()), model(images()))


def test_a_tied_activation_stays_tied() -> None:
    prelu = with_slopes(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), prelu, nn.Conv2d(4, 4, 1), prelu)
    after = converted(model)
    assert after[1] is after[3] and torch.equal(after(images()), model(images()))


def test_a_network_without_storage() -> None:
    model = conv_net(nn.PReLU(4), nn.Mish(), nn.GELU()).to("meta")
    report = small(model, init="replaced")
    assert [site.starts_as for site in report.sites] == ["leaky_relu", "Mish", "gelu"]
    assert all(p.is_meta for p in model.parameters()) and model[1].init_slope.is_meta


# Others


class Cubic(nn.Module):
    """Another package's activation, with an in-place flag."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.pow_(3) if self.inplace else x**3


class ShiftedReLU(nn.ReLU):
    """A ReLU by name only."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - 1


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x)


class Tabled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.table * F.relu(x)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


def is_ours(module: nn.Module) -> bool:
    return type(module).__module__ == __name__


def test_a_module_without_parameters_is_its_own_starting_function() -> None:
    act = Cubic(inplace=True)
    calls: list[object] = []
    act.register_forward_hook(lambda *_: calls.append(1))
    model = network(act, ShiftedReLU(), nn.Tanh())
    expected = model[5](model[4](model[3](model[2](model[0](images()) ** 3))))
    report = small(model, init="replaced", is_activation=lambda m: is_ours(m) or isinstance(m, nn.Tanh))
    assert [site.starts_as for site in report.sites] == ["Cubic", "ShiftedReLU", "tanh"]
    act.forward = None  # the function is a copy
    calls.clear()
    TwoPhaseLearning(model, 1)
    torch.testing.assert_close(model(images()), expected)
    assert not calls and model[1].left_slope.tolist() == [27.0] * 4  # 3 x^2 at the boundary -3


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (metaformer.StarReLU(), "has parameters of its own"),
        (Scaled(), "has parameters of its own"),
        (Tabled(), "has buffers of its own"),
        (PWLU(5, init="silu"), "is a PWLU already"),
        (InPlace(), "no PWLU can start as it: .*in place"),
        (nn.Softmax(dim=1), "no PWLU can start as it: .*each element by itself"),
        (nfnet.GammaAct("tanh"), "no PWLU can start as it: .*inplace"),  # torch cannot differentiate it
    ],
)
def test_what_no_pwlu_can_start_as_is_kept(activation: nn.Module, reason: str) -> None:
    model = network(nn.ReLU(), activation)
    report = small(model, init="replaced", is_activation=lambda m: is_ours(m) or isinstance(m, nn.Softmax))
    assert model[3] is activation and not report.sites[1].replaced and report.sites[1].starts_as == ""
    assert re.match(reason, report.sites[1].reason)


class Residual(nn.Module):
    """As in MiDaS: the activation works in place, so what is added is its output, where it is first."""

    def __init__(self, *activations: nn.Module) -> None:
        super().__init__()
        self.first, self.second = activations
        self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.second(self.conv(self.first(x))))


@pytest.mark.parametrize("in_place", [True, False])
def test_an_activation_in_place_whose_input_is_read_again_is_kept(in_place: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Residual(nn.ReLU6(in_place), nn.SiLU(inplace=True)))
    model = model.append(nn.Conv2d(3, 2, 1))
    after = copy.deepcopy(model)
    report = small(after, init="replaced")
    assert [site.replaced for site in report.sites] == [not in_place, True]
    assert ("is read again" in report.sites[0].reason) == in_place
    assert model[1].second.inplace and after[1].conv.training
    TwoPhaseLearning(after, 1)
    assert torch.equal(after(images()), model(images()))
    after.zero_grad()
    after(images()).sum().backward()


def test_any_other_init_goes_to_make() -> None:
    model = network(nn.ReLU(), nn.PReLU())
    assert [site.starts_as for site in small(model, init="silu").sites] == ["silu", "silu"]
    report = small(model, init="leaky_relu", make=partial(PWLU, init_slope=0.1))
    assert [site.starts_as for site in report.sites] == ["leaky_relu(0.1)"] * 2
    small(model, init=torch.sin)
    torch.testing.assert_close(model[1].points[0], torch.linspace(-3, 3, 17).sin())
    assert [site.starts_as for site in small(model).sites] == ["relu", "relu"]
    report = small(model, make=lambda num_channels: nn.ReLU())
    assert [site.starts_as for site in report.sites] == ["", ""] and "starts as" not in str(report)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda n: PWLU(n), {"init": "silu"}, r"make\(4, init='silu'\).*site '1'.*TypeError.*keywords init"),
        (lambda n, **_: PWLU(n), {"init": "silu"}, "returned a PWLU that starts as relu: `make` must hand"),
        (lambda n, init, **_: PWLU(n, init=init), {}, r"starts as leaky_relu\(0.25\): `make` must hand"),
        (PWLU, {"init": "replace"}, "init is 'replace', expected one of relu, .*did you mean 'replaced'"),
    ],
)
def test_a_make_that_does_not_start_as_told_is_an_error(
    make: Callable[..., PWLU], options: dict[str, str], words: str
) -> None:
    model = conv_net(with_slopes(4))
    with pytest.raises(ValueError, match=words):
        small(model, make=make, **({"init": "replaced"} | options))
    assert isinstance(model[1], nn.PReLU)


def test_converted_networks_are_compiled_exported_and_folded() -> None:
    """In evaluation mode, in phase I and after it."""
    model = network(nn.Mish(), with_slopes(5), nn.Hardswish()).eval()
    after = converted(model)
    expected, x = model(images()), images()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = torch.export.export(after, (x,)).module()
        compiled = torch.compile(after, backend="eager", fullgraph=True)
        for module in (started, compiled):
            torch.testing.assert_close(module(x), expected)
        learning = copy.deepcopy(after)
        for module in (torch.export.export(learning, (x,)).module(), fold(learning), fold(after)):
            torch.testing.assert_close(module(x), learning(x))
