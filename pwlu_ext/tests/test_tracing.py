"""torch.jit.trace and torch.fx take a network with PWLUs; torch.jit.script says that it does not."""

import io
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pwlu import PWLU, TwoPhaseLearning, fold, pwlu, replace_activations
from pwlu_ext.tests.helpers import bent_module, run_python
from pwlu_ext.tests.networks import Hiding, bent_network, pwlus

OPERATOR = torch.ops.pwlu.forward.default
SIZE = (3, 32, 32)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*torch.jit.*:FutureWarning",
    "ignore:pwlu. the operator pwlu..forward is recorded",
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


def namespaces(traced: torch.jit.ScriptModule) -> set[str]:
    return {node.kind().split("::")[0] for node in traced.inlined_graph.nodes()}


def test_traced_folded_network_is_plain_torch(tmp_path: Path) -> None:
    """It loads where there is no pwlu, for another batch and image size than it was traced with."""
    small, x = fold(bent_network("test_resnet")), torch.randn(2, 3, 40, 48)
    for grad in (False, True):
        with torch.set_grad_enabled(grad), warnings.catch_warnings():
            warnings.simplefilter("error", torch.jit.TracerWarning)
            traced = torch.jit.trace(small, torch.randn(1, *SIZE))
        assert namespaces(traced) == {"aten", "prim"}
        torch.testing.assert_close(traced(x), small(x))
    torch.jit.save(traced, tmp_path / "traced.pt")
    torch.save((x, small(x).detach()), tmp_path / "pair.pt")
    elsewhere = f"""
import sys, torch
x, y = torch.load("{tmp_path}/pair.pt")
torch.testing.assert_close(torch.jit.load("{tmp_path}/traced.pt")(x), y)
assert "pwlu" not in sys.modules
"""
    done = run_python("-W", "ignore", "-c", elsewhere)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("channel_dim", [1, -1])
def test_traced_folded_layer(dtype: torch.dtype, groups: int, channel_dim: int) -> None:
    """Frozen too; its gradient with respect to x is there."""
    layer = bent_module(groups)
    layer.channel_dim = channel_dim
    small = fold(layer.double() if dtype == torch.float64 else layer)
    traced = torch.jit.trace(small, torch.randn(1, 3, 3, 3).to(dtype))
    x = 2 * torch.randn(5, 3, 7, 3)
    x = x.to(dtype).requires_grad_()
    for form in (traced, torch.jit.freeze(traced)):
        y, expected = form(x), small(x)
        assert torch.equal(y, expected) and y.dtype == dtype
        assert all(map(torch.equal, torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x)))


def test_traced_after_symbolic_trace() -> None:
    graph = torch.fx.symbolic_trace(fold(bent_network("test_resnet")))
    assert namespaces(torch.jit.trace(graph, torch.randn(1, *SIZE))) == {"aten", "prim"}


@pytest.mark.parametrize(
    "model",
    [bent_module(), bent_module(1).eval(), fold(Hiding())],
    ids=["training", "evaluation", "one was not folded"],
)
def test_who_records_the_operator_is_told_of_fold(model: nn.Module) -> None:
    """It loads only where pwlu is imported; torch.compile stays in this process."""
    x = torch.randn(2, 3, 4)
    for record in (torch.jit.trace, lambda m, x: torch.export.export(m, (x,))):
        with pytest.warns(UserWarning, match=r"pwlu::forward is recorded.*pwlu\.fold\(model\)"):
            record(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.compile(model, fullgraph=True, backend="eager")(x)
        fold(nn.Sequential(nn.BatchNorm1d(3), bent_module()), absorb_batch_norm=True, input_size=(3, 4))


def test_symbolically_traced_network(resnet: nn.Module) -> None:
    graph = torch.fx.symbolic_trace(resnet)
    assert sum(node.target is pwlu for node in graph.graph.nodes) == len(pwlus(resnet))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    x = torch.randn(2, 3, 40, 48)
    assert torch.equal(graph(x), resnet(x))


@pytest.mark.parametrize("layer", [bent_module(), fold(bent_module())])
def test_script_is_an_error(layer: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="PWLU: torch.jit.script cannot compile it. Use torch.compile"):
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), layer))


def test_phase_1_cannot_be_recorded() -> None:
    """What is recorded would collect no statistics, and be what it started as in phase II too."""
    module, x = PWLU(3, init="leaky_relu", init_slope=torch.tensor([0.1, -1, 2])), torch.randn(2, 3, 4)
    TwoPhaseLearning(module, 1)
    traces = (torch.jit.trace, lambda m, x: torch.fx.symbolic_trace(m))
    for record in (*traces, lambda m, x: torch.export.export(m, (x,)).module()):
        with pytest.raises(RuntimeError, match="phase I cannot be traced or exported"):
            record(module, x)
        assert torch.equal(record(module.eval(), x)(x), module(x))
        module.train()


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
