"""The networks of Table 2, with each of its activations: sizes, sites, one training step."""

import copy
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from pytest import approx, mark, raises
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import ACTIVATIONS, FReLU, activation_factory, build_classifier, is_activation


@dataclass(frozen=True)
class Network:
    """Parameters and multiply-adds as Table 2 prints them; the sites counted by hand."""

    parameters: float
    flops: float
    replaced: int
    sites: int  # with the SE blocks' and, in MobileNetV3, the head's, which are kept
    channels: int  # of all replaced sites together


NETWORKS = {
    "resnet18": Network(11.69e6, 1.8e9, 17, 17, 5 * 64 + 4 * (128 + 256 + 512)),
    "resnet50": Network(25.5e6, 4.1e9, 49, 49, 64 + 3 * 6 * 64 + 4 * 6 * 128 + 6 * 6 * 256 + 3 * 6 * 512),
    "mobilenetv2_100": Network(
        *(3.5e6, 300e6, 35, 35),
        2 * 32 + 2 * (96 + 2 * 144 + 3 * 192 + 4 * 384 + 3 * 576 + 3 * 960) + 1280,
    ),
    "mobilenetv3_small_100": Network(
        *(2.6e6, 56e6, 23, 23 + 9 + 1),
        2 * 16 + 2 * (72 + 88 + 96 + 2 * 240 + 120 + 144 + 288 + 2 * 576) + 576,
    ),
    "efficientnet_b0": Network(
        *(5.3e6, 384e6, 33, 33 + 16),
        2 * 32 + 2 * (96 + 2 * 144 + 2 * 240 + 3 * 480 + 3 * 672 + 4 * 1152) + 1280,
    ),
}

# Parameters that an activation adds: for every channel, for every site.
ADDED = {
    "relu": (0, 0),
    "swish": (0, 0),
    "prelu": (1, 0),
    "apl": (2 * 3, 0),
    "pau": (0, 6 + 4),
    "frelu": (9 + 2, 0),
    "pwlu": (16 + 1 + 4, 0),
    "leaky_relu": (0, 0),
}


@mark.parametrize("name", NETWORKS)
def test_sizes_are_those_of_table_2(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    multiply_adds = counter.get_total_flops() / 2
    network = NETWORKS[name]
    assert parameters == approx(network.parameters, rel=0.025)
    assert multiply_adds == approx(network.flops, rel=0.02)


@mark.parametrize("activation", ACTIVATIONS)
@mark.parametrize("name", NETWORKS)
def test_every_network_takes_every_activation_at_the_same_sites(name, activation):
    network, (per_channel, per_site) = NETWORKS[name], ADDED[activation]
    with torch.device("meta"):
        make = activation_factory(activation)
        model, report = build_classifier(name, make, num_classes=1000, input_size=(3, 224, 224))
    replaced = [site for site in report.sites if site.replaced]
    assert (len(replaced), len(report.sites)) == (network.replaced, network.sites)
    assert sum(site.num_channels for site in replaced) == network.channels
    kind = type(make(1))
    assert all(type(model.get_submodule(site.name)) is kind for site in replaced)
    for site in report.sites:
        if not site.replaced:
            assert site.name == "act2" or ".se." in site.name
            assert site.spatial_size == (1, 1) and type(model.get_submodule(site.name)).__name__ == site.kind
    added = per_channel * network.channels + per_site * network.replaced
    assert report.parameters_after - report.parameters_before == added
    groups = [module for module in model.modules() if is_activation(module)]
    assert sum(p.numel() for module in groups for p in module.parameters()) == added


def one_step(name, activation):
    """The network after an SGD step on four grey 64 x 64 images, its report and its state before the step."""
    torch.manual_seed(0)
    model, report = build_classifier(
        name, activation_factory(activation), num_classes=4, input_size=(1, 64, 64)
    )
    start = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(torch.randn(4, 1, 64, 64)), torch.arange(4)).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.isfinite().all(), key
    return model, report, start


@mark.parametrize("activation", ACTIVATIONS)
def test_a_training_step_moves_every_parameter_of_the_activation(activation):
    model, report, start = one_step("mobilenetv3_small_100", activation)
    assert report.summary().startswith("replaced 23 of 33 sites")
    for own, _ in activation_factory(activation)(4).named_parameters():
        keys = [f"{site.name}.{own}" for site in report.sites if site.replaced]
        moved = [not torch.equal(model.state_dict()[key], start[key]) for key in keys]
        assert any(moved) or (activation, own) == ("apl", "hinges")  # these move from the second step on
    assert model.eval()(torch.randn(2, 1, 64, 64)).shape == (2, 4)


def test_channel_last_networks_take_what_can_be_applied_there():
    with torch.device("meta"):
        for activation in ("relu", "swish", "apl", "pau", "pwlu"):
            make = activation_factory(activation)
            _, report = build_classifier("test_vit", make, num_classes=2, input_size=(3, 160, 160))
            assert report.summary().startswith("replaced 6 of 6 sites")
        for activation in ("prelu", "frelu"):
            with raises(ValueError, match=r"channel_dim=-1\).*failed with TypeError"):
                build_classifier(
                    "test_vit", activation_factory(activation), num_classes=2, input_size=(3, 160, 160)
                )


@mark.parametrize(
    "arguments, words",
    [
        (
            {"name": "resnet81"},
            r"model name is 'resnet81', which timm \S+ does not have; did you mean resnet18",
        ),
        ({"num_classes": 0}, "num_classes is 0, expected >= 1"),
        ({"input_size": (224, 224)}, r"input_size is \(224, 224\), expected \(channels, height, width\)"),
        ({"input_size": (3, 8, -1)}, r"input_size is \(3, 8, -1\)"),
        ({"make": FReLU(4)}, r"make\(64\)"),
    ],
)
def test_errors(arguments, words):
    right = {"name": "resnet18", "make": nn.PReLU, "num_classes": 2, "input_size": (3, 32, 32)}
    with torch.device("meta"), raises(ValueError, match=words):
        values = right | arguments
        build_classifier(values.pop("name"), values.pop("make"), **values)
