"""Activations that are no modules: called as functions, written out, compiled. All are reported."""

import math

import torch
import torch.nn.functional as F
from pytest import mark, raises
from timm.layers import EvoNorm2dS0, activations, activations_me
from torch import nn

from pwlu import PWLU, replace_activations
from pwlu_ext.tests.networks import small

pytestmark = mark.filterwarnings("ignore:.*torch.jit.*", "ignore:enable_nested_tensor")


class Block(nn.Module):
    """A convolution, then whatever `function` does, then a ReLU module."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.act, self.function = nn.Conv2d(3, 8, 1), nn.ReLU(), function

    def forward(self, x):
        return self.act(self.function(self.conv(x)))


def kept(report):
    """What was not replaced, as {name: kind}."""
    return {site.name: site.kind for site in report.sites if not site.replaced}


FUNCTIONS = {
    "F.relu": [F.relu, torch.relu, torch.Tensor.relu_, lambda x: F.relu(x, inplace=True)],
    "F.relu6": [F.relu6, lambda x: F.relu6(x, inplace=True)],
    "F.silu": [F.silu, lambda x: F.silu(x, inplace=True)],
    "F.gelu": [F.gelu, lambda x: F.gelu(x, approximate="tanh")],
    "F.hardswish": [F.hardswish],
    "F.leaky_relu": [F.leaky_relu],
    "F.elu": [F.elu],
    "F.mish": [F.mish],
    "F.softplus": [F.softplus],
    "F.threshold": [lambda x: F.threshold(x, 0.1, 0.0)],
    "F.prelu": [lambda x: F.prelu(x, torch.tensor([0.5]))],
    "maximum(x, t)": [lambda x: torch.maximum(torch.zeros(()), x), lambda x: x.max(torch.zeros(1, 8, 1, 1))],
    "clamp(min=0)": [lambda x: x.clamp(min=0), lambda x: x.clamp_min(0.0), lambda x: x.clamp_(0)],
}


def gelu_by_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


WRITTEN_OUT = {
    "x * sigmoid(x)": [
        *(activations.swish, lambda x: activations.swish(x, inplace=True), activations_me.swish_me),
        *(activations.quick_gelu, lambda x: torch.sigmoid(x) * x),
        lambda x: torch.jit.script(activations.quick_gelu)(x),
        lambda x: x.permute(0, 2, 3, 1) * x.clone().sigmoid_().permute(0, 2, 3, 1),
    ],
    "x * tanh(x)": [gelu_by_tanh, lambda x: x * torch.log1p(x.exp()).tanh()],
    "x * erf(x)": [lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2)))],
    "x * clamp(x)": [activations.hard_mish, lambda x: x * (x + 3).clamp(0, 6) / 6],
    "x * hardsigmoid(x)": [lambda x: x * F.hardsigmoid(x)],
    "x / exp(x)": [lambda x: x / (1 + torch.exp(-x))],
}


ALL = [(kind, function) for kind, functions in (FUNCTIONS | WRITTEN_OUT).items() for function in functions]


@mark.parametrize("kind, function", ALL)
def test_activations_without_a_module(kind, function):
    report = small(nn.Sequential(Block(function)))
    assert [(site.name, site.kind, site.replaced) for site in report.sites] == [
        ("0.act", "ReLU", True),
        ("0", kind, False),
    ]
    how = "called as a function" if kind.startswith("F.") else "written out"
    assert report.sites[1].reason == f"{how}: there is no module to replace"
    assert (report.sites[1].num_channels, report.sites[1].spatial_size) == (8, (6, 7))


GATES = [
    *(torch.sigmoid, torch.tanh, F.hardsigmoid, F.hardtanh, lambda x: x.softmax(1), lambda x: x.clamp(-1, 1)),
    lambda x: F.glu(torch.cat([x, x], 1), 1),
    lambda x: x[:, :4] * x[:, 4:].sigmoid(),
    lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    lambda x: x * F.conv2d(x, torch.ones(8, 8, 1, 1)).sigmoid(),
    lambda x: x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt(),
    lambda x: x.exp() / x.exp().sum(1, keepdim=True),
    *(lambda x: x * x + x * 2, lambda x: torch.maximum(x, -x), lambda x: x.clamp(min=0.1)),
]


@mark.parametrize("function", GATES)
def test_gates_norms_and_polynomials_are_none(function):
    assert len(small(Block(function)).sites) == 1


@mark.parametrize("shape", [(), (5,), (2, 3)])
def test_functions_of_parameters(shape):
    """They have no batch, and no channels where one would look for them."""
    weight = nn.Parameter(torch.ones(shape))
    model = nn.Sequential(Block(lambda x: x * F.softplus(weight).sum()), nn.ReLU())
    for channel_dim in (None, 3):
        assert kept(small(model, channel_dim=channel_dim)) == {"0": "F.softplus"}


def test_a_module_on_a_parameter_is_tiny():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.positive, self.weight = nn.Softplus(), nn.ParameterList(torch.ones(s) for s in ((), (5,)))

        def forward(self, x):
            return x * sum(self.positive(weight).sum() for weight in self.weight)

    for length, reason in ((1, "tiny map"), (2, "one module called with 1, 5 channels")):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Scaled())
        model[2].weight = model[2].weight[-length:]
        site = small(model).sites[1]
        assert site.name == "2.positive" and not site.replaced and site.reason.startswith(reason)


def test_repeated_calls_are_counted():
    report = small(Block(lambda x: F.relu(F.relu(x))))
    assert report.sites[1].name == "(model)"
    assert report.sites[1].reason == "called as a function 2 times: there is no module to replace"


def test_a_norm_with_an_activation_of_its_own():
    block = Block(nn.Identity())
    block.function = EvoNorm2dS0(8, groups=4)
    assert kept(small(nn.Sequential(block))) == {"0.function": "x * sigmoid(x)"}
    with raises(ValueError, match=r"(?s)nothing was replaced .*x \* sigmoid\(x\) .*written out"):
        small(nn.Sequential(nn.Conv2d(3, 8, 1), EvoNorm2dS0(8, groups=4)))


class Foreign(nn.Module):
    """An activation module of another package."""

    def forward(self, x):
        return F.silu(x)


def test_an_unknown_activation_module_is_named_with_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Foreign(), nn.ReLU())
    report = small(model)
    assert kept(report) == {"1": "F.silu"}
    hint = "if Foreign is an activation, name it by is_activation to have it replaced"
    assert report.sites[1].reason == f"called as a function: {hint}"
    assert small(model, is_activation=lambda module: isinstance(module, Foreign)).sites[0].kind == "Foreign"


@mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(F.relu),
        lambda: torch.jit.script(nn.ReLU()),
        lambda: torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())),
        lambda: torch.jit.trace(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), torch.zeros(1, 8, 6, 7)),
    ],
    ids=["function", "activation", "scripted block", "traced block"],
)
def test_what_was_scripted_or_traced_cannot_be_exchanged(make):
    model = nn.Sequential(Block(make()))
    report = small(model)
    assert isinstance(model[0].act, PWLU) and [*kept(report).values()] == ["F.relu"]
    assert model(torch.randn(2, 3, 6, 7)).shape == (2, 8, 6, 7)


# torch's encoder layers compute ReLU or GELU by a fused kernel in eval mode, without asking their module.


def encoder(activation):
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation=activation, batch_first=True)
    return nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoder(layer, 2))


def without_gradients(model, x, **options):
    with torch.no_grad():
        return model(x, **options)


@mark.parametrize("first", [nn.GELU(), nn.ReLU(), nn.SiLU()])
def test_encoder_layers_use_what_replaced_their_activation(first):
    torch.manual_seed(0)
    model = encoder(first).eval()
    assert replace_activations(model, input_size=(5, 8)).summary().startswith("replaced 2 of 2")
    for layer in model[1].layers:
        layer.activation.points.data += torch.randn_like(layer.activation.points)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(without_gradients(model, x), model(x))
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    actual = without_gradients(model[1], x, src_key_padding_mask=padding)
    torch.testing.assert_close(actual[~padding], model[1](x, src_key_padding_mask=padding)[~padding])


@mark.parametrize("last", [nn.GELU, nn.ReLU])
def test_encoder_layers_go_back_to_what_torch_knows(last):
    torch.manual_seed(0)
    model = encoder(nn.GELU() if last is nn.ReLU else nn.ReLU()).eval()
    replace_activations(model, input_size=(5, 8), make=lambda num_channels, channel_dim: last())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(without_gradients(model, x), model(x))
    with raises(ValueError, match=r"(?s)nothing was replaced.*F.relu .*called as a function"):
        replace_activations(encoder(F.relu), input_size=(5, 8))
