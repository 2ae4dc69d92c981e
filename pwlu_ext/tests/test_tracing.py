"""torch.jit.trace and torch.fx take a network with PWLUs; torch.jit.script says that it does not."""

import io

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pwlu import PWLU, TwoPhaseLearning, pwlu, replace_activations
from pwlu_ext.tests.helpers import bent_module
from pwlu_ext.tests.networks import bent_network, pwlus

OPERATOR = torch.ops.pwlu.forward.default
SIZE = (3, 32, 32)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return bent_network("resnet18").eval()


def test_traced_network(resnet: nn.Module) -> None:
    """Saved and loaded, for another batch and image size than it was traced with."""
    stored = io.BytesIO()
    torch.jit.save(torch.jit.trace(resnet, torch.randn(1, *SIZE)), stored)
    stored.seek(0)
    x = torch.randn(2, 3, 40, 48)
    assert torch.equal(torch.jit.load(stored)(x), resnet(x))


def test_traced_module_learns() -> None:
    module = bent_module(3, 5)
    traced = torch.jit.trace(module, torch.randn(2, 3, 4))
    x = torch.randn(5, 3, 2, requires_grad=True)
    expected = torch.autograd.grad(module(x).square().sum(), (x, *module.parameters()))
    actual = torch.autograd.grad(traced(x).square().sum(), (x, *module.parameters()))
    assert all(map(torch.equal, actual, expected))


def test_symbolically_traced_network(resnet: nn.Module) -> None:
    graph = torch.fx.symbolic_trace(resnet)
    assert sum(node.target is pwlu for node in graph.graph.nodes) == len(pwlus(resnet))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    x = torch.randn(2, 3, 40, 48)
    assert torch.equal(graph(x), resnet(x))


def test_script_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="torch.jit.script cannot compile it. Use torch.compile"):
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), bent_module(3, 5)))


def test_phase_1_cannot_be_traced() -> None:
    """A trace would collect no statistics, and be ReLU in phase II too."""
    module = PWLU(3)
    TwoPhaseLearning(module, 1)
    with pytest.raises(RuntimeError, match="phase I cannot be traced"):
        torch.jit.trace(module, torch.randn(2, 3, 4))
    torch.jit.trace(module.eval(), torch.randn(2, 3, 4))


def test_flops_of_a_network() -> None:
    """Five per element of every replaced map, next to those of the convolutions."""
    model = timm.create_model("test_resnet", num_classes=5).eval()
    totals = []
    for replaced in (False, True):
        report = replace_activations(model, input_size=SIZE) if replaced else None
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(2, *SIZE))
        totals.append(counter.get_total_flops())
    assert report is not None
    replaced_sites = [site for site in report.sites if site.replaced]
    elements = sum(torch.Size((2, site.num_channels, *site.spatial_size)).numel() for site in replaced_sites)
    assert totals[1] - totals[0] == 5 * elements
