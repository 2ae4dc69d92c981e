from functools import partial

import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import mark, raises
from timm.layers import activations, activations_me
from timm.models import metaformer
from torch import nn

from pwlu import PWLU, replace_activations


class Functional(nn.Module):
    """One conv, then whatever `function` does, then a ReLU module."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.act, self.function = nn.Conv2d(3, 8, 1), nn.ReLU(), function

    def forward(self, x):
        return self.act(self.function(self.conv(x)))


class Residual(nn.Module):
    """As in torchvision's ResNet: one ReLU object serves all convolutions, which have the given widths."""

    def __init__(self, inputs, *widths):
        super().__init__()
        self.relu = nn.ReLU()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip((inputs, *widths), widths, strict=False)
        )

    def forward(self, x):
        for conv in self.convs:
            x = self.relu(conv(x))
        return x


def conv_net(*activations):
    """Convolutions of 3 -> 4 -> 5 -> ... channels, each followed by one of the activations."""
    layers = [(nn.Conv2d(i + 3, i + 4, 1), act) for i, act in enumerate(activations)]
    return nn.Sequential(*(module for pair in layers for module in pair))


def small(model, **options):
    return replace_activations(model, input_size=(3, 6, 7), **options)


def reasons(report):
    return {site.name: site.reason for site in report.sites if not site.replaced}


def test_resnet18_has_a_channelwise_pwlu_at_each_of_its_17_sites():
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    report = replace_activations(model)
    assert [site.name for site in report.sites[:3]] == ["act1", "layer1.0.act1", "layer1.0.act2"]
    assert (report.sites[0].num_channels, report.sites[0].spatial_size) == (64, (112, 112))
    widths = [64] * 5 + [128] * 4 + [256] * 4 + [512] * 4
    assert [site.num_channels for site in report.sites] == widths
    assert [m.num_parameters for m in model.modules() if isinstance(m, PWLU)] == widths
    assert report.parameters_after - report.parameters_before == sum(widths) * (16 + 1 + 4)
    assert report.parameters_after == sum(p.numel() for p in model.parameters())
    assert str(report).splitlines()[-1] == "replaced 17 of 17 sites, +0.7 % parameters"
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())


def test_the_same_activation_gives_the_same_network():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=5).eval()
    x = torch.randn(1, 3, 48, 48)
    expected = model(x)
    replace_activations(model, input_size=(3, 48, 48), make=lambda num_channels: nn.ReLU())
    assert torch.equal(model(x), expected)


def test_pwlu_starts_as_relu_and_learns():
    torch.manual_seed(0)
    model = conv_net(nn.ReLU(), nn.ReLU())
    x = torch.randn(2, 3, 6, 7)
    expected = model(x)
    small(model)
    y = model(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model[1].points.grad.any()


def test_tiny_maps_keep_their_activation():
    block = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.Sigmoid()
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.GELU())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), block, head)
    report = small(model)
    assert reasons(report) == {
        "2.2": "tiny map, fewer than 2 positions",
        "3.2": "tiny map, fewer than 2 positions",
    }
    assert [site.spatial_size for site in report.sites] == [(6, 7), (1, 1), ()]
    assert isinstance(block[2], nn.ReLU) and isinstance(block[4], nn.Sigmoid) and isinstance(head[2], nn.GELU)
    report = small(model, min_positions=1)
    assert all(site.replaced for site in report.sites) and isinstance(block[4], nn.Sigmoid)


@mark.parametrize("min_positions, replaced", [(42, True), (43, False)])
def test_min_positions_counts_the_map(min_positions, replaced):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.ReLU())
    report = small(model, min_positions=min_positions)
    assert [site.replaced for site in report.sites] == [replaced, True]


def test_input_size_decides_what_is_tiny():
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    assert replace_activations(model, input_size=(3, 32, 32)).summary().startswith("replaced 13 of 17 sites")


def test_a_module_that_serves_several_widths_is_kept_and_named():
    model = nn.Sequential(Residual(3, 4, 8), Residual(8, 5, 5))
    report = small(model)
    assert reasons(report) == {
        "0.relu": "one module called with 4, 8 channels: no new one could serve them all"
    }
    assert report.sites[0].num_channels is None and isinstance(model[0].relu, nn.ReLU)
    assert report.sites[1].reason == "one new module serves 2 calls" and model[1].relu.num_parameters == 5


def test_one_relu_in_several_places_becomes_one_module_in_each():
    relu = nn.ReLU()
    model = conv_net(relu, relu, relu)
    assert small(model).summary().startswith("replaced 3 of 3")
    assert [model[i].num_parameters for i in (1, 3, 5)] == [4, 5, 6]


def test_sharing_survives_where_nothing_is_replaced():
    relu = nn.ReLU()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), relu, nn.Conv2d(4, 5, 1), relu
    )
    small(model)
    assert model[3] is relu and model[5] is relu


def test_tied_parameters_stay_tied():
    prelu = nn.PReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), prelu, nn.Conv2d(4, 4, 1), prelu)
    report = small(model)
    assert model[1] is model[3] and isinstance(model[1], PWLU)
    assert report.summary().startswith("replaced 1 of 1")
    assert report.sites[0].reason == "tied: one new module in 2 places; one new module serves 2 calls"


def test_a_shared_block_keeps_sharing_its_activation():
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    model = nn.Sequential(block, block)
    report = small(model)
    assert [site.reason for site in report.sites] == ["one new module serves 2 calls"]
    assert isinstance(model[0][1], PWLU) and model[1] is model[0]


FUNCTIONS = {
    "relu": [F.relu, torch.relu, torch.Tensor.relu_, lambda x: F.relu(x, inplace=True)],
    "relu6": [F.relu6],
    "silu": [F.silu, lambda x: F.silu(x, inplace=True)],
    "gelu": [F.gelu],
    "hardswish": [F.hardswish],
    "leaky_relu": [F.leaky_relu],
    "elu": [F.elu],
    "mish": [F.mish],
    "prelu": [lambda x: F.prelu(x, torch.tensor([0.5]))],
}


@mark.parametrize("name, function", [(name, f) for name, functions in FUNCTIONS.items() for f in functions])
def test_activations_called_as_functions_are_reported(name, function):
    report = small(nn.Sequential(Functional(function)))
    assert [(site.name, site.kind, site.replaced) for site in report.sites] == [
        ("0.act", "ReLU", True),
        ("0", f"F.{name}", False),
    ]
    assert report.sites[1].reason == "called as a function: there is no module to replace"
    assert (report.sites[1].num_channels, report.sites[1].spatial_size) == (8, (6, 7))


def test_repeated_function_calls_are_counted():
    report = small(Functional(lambda x: F.relu(F.relu(x))))
    assert reasons(report) == {"(model)": "called as a function 2 times: there is no module to replace"}


@mark.parametrize("function", [torch.sigmoid, torch.tanh, F.hardsigmoid, F.hardtanh, lambda x: x.softmax(1)])
def test_gates_are_not_sites(function):
    assert len(small(Functional(function)).sites) == 1


def test_gate_modules_are_not_sites_whatever_they_call():
    gates = [activations.HardSigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Softmax2d()]
    assert len(small(conv_net(*gates, nn.ReLU())).sites) == 1


TORCH_ACTIVATIONS = "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Hardswish Softplus".split()
OTHER_ACTIVATIONS = [
    *(activations.HardMish, activations.GELUTanh, activations.PReLU, activations.Swish),
    *(activations_me.SwishMe, activations_me.HardSwishMe, metaformer.StarReLU, partial(PWLU, 1)),
]


@mark.parametrize("activation", [getattr(nn, name) for name in TORCH_ACTIVATIONS] + OTHER_ACTIVATIONS)
def test_every_elementwise_activation_is_a_site(activation):
    module = activation()
    report = small(conv_net(module))
    assert [(site.kind, site.replaced) for site in report.sites] == [(type(module).__name__, True)]


def test_activations_inside_batch_norm_are_sites():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU))
    report = small(model)
    assert [site.name for site in report.sites] == ["1.act"] and isinstance(model[1].act, PWLU)


def test_sites_that_never_run_are_reported():
    model = conv_net(nn.ReLU())
    model.spare = nn.Identity()
    model.spare.act = nn.GELU()
    report = small(model)
    assert reasons(report) == {"spare.act": "never ran in the measuring forward"}
    assert str(report).splitlines()[2].split()[:4] == ["spare.act", "GELU", "-", "-"]


def test_other_packages_activations_are_named_by_a_predicate():
    class Snake(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ReLU()

        def forward(self, x):
            return F.relu(self.inner(x))

    model = conv_net(Snake())
    report = small(model, is_activation=lambda module: isinstance(module, Snake))
    assert [site.kind for site in report.sites] == ["Snake"] and isinstance(model[1], PWLU)


def test_replacing_again_and_again():
    model = conv_net(nn.Hardswish(), nn.ReLU())
    for make in (lambda num_channels: nn.ReLU(), lambda num_channels: nn.SiLU(), nn.PReLU, PWLU, PWLU):
        assert small(model, make=make).summary().startswith("replaced 2 of 2")
    report = small(model, make=lambda num_channels: nn.ReLU())
    assert report.sites[0].kind == "PWLU"
    assert report.parameters_before - report.parameters_after == (4 + 5) * 21 and "-" in report.summary()


# Transformers and ConvNeXt: where the channels are.


def test_vit_has_its_channels_last():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=2)
    report = replace_activations(model)
    assert [(site.num_channels, site.spatial_size) for site in report.sites] == [(768, (197,))] * 2
    assert {m.channel_dim for m in model.modules() if isinstance(m, PWLU)} == {-1}


@mark.parametrize("conv_mlp, channel_dim", [(False, -1), (True, 1)])
def test_convnext_has_them_last_unless_its_mlp_is_convolutional(conv_mlp, channel_dim):
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", depths=(1, 1, 0, 0), conv_mlp=conv_mlp, num_classes=3)
    report = replace_activations(model, input_size=(3, 32, 32))
    assert [(site.num_channels, site.spatial_size) for site in report.sites] == [(160, (8, 8)), (320, (4, 4))]
    assert {m.channel_dim for m in model.modules() if isinstance(m, PWLU)} == {channel_dim}
    assert model(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_a_gate_split_off_a_linear_layer_before_a_convolution_is_still_channels_last():
    with torch.device("meta"):
        model = timm.create_model("mambaout_femto", depths=(1, 1, 1, 1))
    report = replace_activations(model, input_size=(3, 64, 64))
    assert [site.spatial_size for site in report.sites[1:5]] == [(16, 16), (8, 8), (4, 4), (2, 2)]


class Net(nn.Module):
    """Layers on (batch, width, height, channels) or (batch, channels, height, width), each with a GELU."""

    def __init__(self, widths, channels_last):
        super().__init__()
        self.channels_last = channels_last
        pairs = list(zip((3, *widths), widths, strict=False))
        layer = nn.Linear if channels_last else (lambda a, b: nn.Conv2d(a, b, 1))
        self.layers = nn.ModuleList(nn.Sequential(layer(a, b), nn.GELU(), nn.Dropout(0.1)) for a, b in pairs)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        for layer in self.layers:
            x = layer(x)
            x = x + x
        return x


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 7), st.integers(2, 7)),
    channels_last=st.booleans(),
)
def test_channels_are_found_whatever_the_sizes(widths, size, channels_last):
    """Also where the channels are as many as a spatial dimension is long."""
    model = Net(widths, channels_last)
    report = replace_activations(model, input_size=(3, *size))
    assert [site.num_channels for site in report.sites] == widths
    assert {site.spatial_size for site in report.sites} == {size}
    assert {layer[1].channel_dim for layer in model.layers} == {-1 if channels_last else 1}
    assert model(torch.zeros(2, 3, *size)).shape[-1 if channels_last else 1] == widths[-1]


def test_channel_dim_can_be_given():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    report = small(model, channel_dim=2)
    assert report.sites[0].num_channels == 6 and model[1].channel_dim == 2


# What the measuring forward and the new modules leave as it was.


class Counter(nn.Module):
    """Writes to two buffers in every forward, one in place and one by assignment."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        self.last = x.mean(dim=(1, 2, 3))
        return x


def test_flags_buffers_and_hooks_are_as_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), Counter(), nn.Dropout())
    model[1].eval()
    flags = [module.training for module in model]
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    small(model)
    assert [module.training for module in model] == flags
    for name, (buffer, value) in buffers.items():
        assert model.get_buffer(name) is buffer and torch.equal(buffer, value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_new_modules_take_device_and_flag_and_float64(dtype):
    model = conv_net(nn.ReLU()).to(dtype).eval()
    small(model)
    assert not model[1].training
    assert model[1].points.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    x = torch.randn(1, 3, 6, 7, dtype=dtype)
    torch.testing.assert_close(model(x), model[0](x).relu())
    model = conv_net(nn.ReLU()).to("meta")
    small(model)
    assert model[1].points.device.type == "meta"


@mark.parametrize("inplace", [True, False])
def test_new_modules_take_the_inplace_flag(inplace):
    model = conv_net(nn.ReLU(inplace=inplace), nn.GELU())
    small(model, make=lambda num_channels: nn.SiLU(inplace=True))
    assert (model[1].inplace, model[3].inplace) == (inplace, False)


# Errors: each names the argument, and the model stays as it was.


@mark.parametrize(
    "options, words",
    [
        ({"input_size": (3, 32)}, r"forward of Sequential at input_size=\(3, 32\) failed"),
        ({"input_size": (4, 8, 8)}, r"input_size=\(4, 8, 8\) failed .*RuntimeError"),
        ({"input_size": ()}, r"input_size is \(\), expected the shape of one input"),
        ({"input_size": (3, 0, 4)}, r"input_size is \(3, 0, 4\)"),
        ({"input_size": 224}, "input_size is 224"),
        ({"make": "relu"}, "make is 'relu', expected a callable"),
        ({"make": lambda: nn.ReLU()}, r"make\(4\), as site '1' needs it, failed with TypeError"),
        ({"make": lambda num_channels: F.relu}, r"make\(4\) returned function, expected an nn.Module"),
        ({"min_positions": 0}, "min_positions is 0, expected an integer >= 1"),
        ({"channel_dim": 4}, "no channel dimension 4.*channel_dim=4"),
        ({"min_positions": 43}, r"(?s)nothing was replaced in Sequential.*1 +ReLU +4 +6x7 +kept: tiny map"),
    ],
)
def test_errors_name_the_argument_and_change_nothing(options, words):
    model = conv_net(nn.ReLU(), nn.PReLU())
    before = [*model]
    with raises(ValueError, match=words):
        replace_activations(model, **({"input_size": (3, 6, 7)} | options))
    assert all(a is b for a, b in zip(model, before, strict=True))
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_make_without_channel_dim_is_told_so():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU())
    with raises(ValueError, match=r"make\(4, channel_dim=-1\), as site '1' needs it.*channel_dim"):
        replace_activations(model, input_size=(6, 7, 3), make=nn.PReLU)
    assert isinstance(model[1], nn.GELU)


def test_nothing_to_replace_is_an_error():
    with raises(ValueError, match="nothing to replace: Sequential has no activation site.*is_activation"):
        small(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()))
    with raises(ValueError, match="(?s)nothing was replaced in .*F.relu.*called as a function"):
        small(nn.Sequential(nn.Conv2d(3, 4, 1), FunctionalOnly()))


class FunctionalOnly(nn.Module):
    def forward(self, x):
        return F.relu(x)


def test_an_activation_itself_is_an_error():
    with raises(ValueError, match=r"model is itself an activation \(ReLU\).*nn.Sequential"):
        small(nn.ReLU())


def test_a_wrapped_model_is_an_error():
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    with raises(ValueError, match="DistributedDataParallel"):
        small(wrapped)


def test_the_table_is_aligned():
    report = small(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(1), nn.ReLU()))
    assert str(report).splitlines() == [
        "site  was        channels  map  result",
        "1     LeakyReLU         4  6x7  replaced",
        "3     ReLU              4  1x1  kept: tiny map, fewer than 2 positions",
        "replaced 1 of 2 sites, +525.0 % parameters",
    ]
