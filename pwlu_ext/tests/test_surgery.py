"""Which activations are replaced, which are kept, and for which reason."""

from functools import partial

import timm
import torch
import torch.nn.functional as F
from pytest import mark
from timm.layers import activations, activations_me
from timm.models import metaformer, nfnet
from torch import nn

from pwlu import PWLU, replace_activations
from pwlu_ext.tests.networks import conv_net, small


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


def test_gate_modules_are_not_sites_whatever_they_call():
    gates = [activations.HardSigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Softmax2d()]
    assert len(small(conv_net(*gates, nn.ReLU())).sites) == 1


TORCH_ACTIVATIONS = "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Hardswish Softplus".split()
OTHER_ACTIVATIONS = [
    *(activations.HardMish, activations.GELUTanh, activations.PReLU, activations.Swish),
    *(
        activations_me.SwishMe,
        activations_me.HardSwishMe,
        metaformer.StarReLU,
        nfnet.GammaAct,
        partial(PWLU, 1),
    ),
]


@mark.parametrize("activation", [getattr(nn, name) for name in TORCH_ACTIVATIONS] + OTHER_ACTIVATIONS)
def test_every_elementwise_activation_is_a_site(activation):
    module = activation()
    report = small(conv_net(module))
    assert [(site.kind, site.replaced) for site in report.sites] == [(type(module).__name__, True)]


def test_sites_that_never_run_are_reported():
    model = conv_net(nn.ReLU())
    model.spare = nn.Identity()
    model.spare.act = nn.GELU()
    report = small(model)
    assert reasons(report) == {"spare.act": "never ran in the measuring forward"}
    assert str(report).splitlines()[2].split()[:4] == ["spare.act", "GELU", "-", "-"]


def test_an_activation_that_is_reached_past_its_attribute_is_reported():
    """A new module at the attribute would never run."""

    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU()
            self.acts = [self.act, self.act.forward]

        def forward(self, x):
            return self.acts[1](self.acts[0](self.conv(x)))

    model = nn.Sequential(Aliased(), nn.ReLU())
    report = small(model)
    assert reasons(report) == {
        "0.act": "never ran in the measuring forward",
        "0": "called as a function 2 times: there is no module to replace",
    }
    assert model[0].acts[0] is model[0].act


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
