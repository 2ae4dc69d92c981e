"""torch.compile and torch.export see one operator, and compute what eager mode computes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from pwlu import PWLU, TwoPhaseLearning, fold
from pwlu_ext.tests.helpers import bent_module, random_parameters, spread_inputs

OPERATOR = torch.ops.pwlu.forward.default


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def operators(graph: torch.fx.Graph) -> list[Any]:
    return [n.target for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload)]


def step(network: Callable[[Tensor], Tensor], module: PWLU, x: Tensor) -> list[Tensor]:
    """y and all gradients."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = network(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_equals_eager(device: str, dynamic: bool) -> None:
    module = bent_module(device=device)
    graphs: list[torch.fx.GraphModule] = []

    def count_and_run(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=count_and_run)
    for shape in ((2, 3, 4, 6), (5, 3, 8, 2)):
        x = spread_inputs(shape, random_parameters(3, 5, device=device))
        for memory_format in (torch.contiguous_format, torch.channels_last):
            image = x.contiguous(memory_format=memory_format)
            for actual, expected in zip(
                step(compiled, module, image), step(module, module, image), strict=True
            ):
                assert torch.equal(actual, expected) and actual.stride() == expected.stride()
    for graph in graphs:
        assert operators(graph.graph) == [OPERATOR]


def test_inductor(device: str) -> None:
    """The default compiler. Nothing here makes it write C++, which would take it half a minute."""
    module = bent_module(device=device)

    def network(x: Tensor) -> Tensor:
        return module(x.transpose(1, 2)).transpose(1, 2)

    compiled = torch.compile(network, fullgraph=True)
    x = spread_inputs((2, 3, 9), random_parameters(3, 5, device=device)).transpose(1, 2).contiguous()
    for actual, expected in zip(step(compiled, module, x), step(network, module, x), strict=True):
        assert torch.equal(actual, expected) and actual.stride() == expected.stride()


def test_inductor_has_no_kernel_around_a_pwlu(device: str) -> None:
    """On a CPU its convolutions are channels_last, where those of eager mode are contiguous."""
    torch.manual_seed(0)
    first, last = torch.nn.Conv2d(3, 4, 3).to(device), torch.nn.Conv2d(4, 2, 3).to(device)
    module, x = bent_module(4, device=device), torch.randn(2, 3, 8, 9, device=device)

    def number_of_kernels(*layers: torch.nn.Module) -> int:
        network = torch.nn.Sequential(*layers).eval()
        with torch.no_grad():
            y, codes = run_and_get_code(torch.compile(network, fullgraph=True), x)
            torch.testing.assert_close(y, network(x))
        return sum(code.count("async_compile.") for code in codes)

    without = number_of_kernels(first, last)
    assert number_of_kernels(first, module, last) == number_of_kernels(first, fold(module), last) == without


@pytest.mark.parametrize("dynamic", [False, True])
def test_folded_leaves_alone_what_is_read_later(dynamic: bool) -> None:
    """Compiled it works in place, but not on the network's input, a shortcut, a second PWLU's, an output."""
    convolution, one, other = torch.nn.Conv2d(3, 3, 1), fold(bent_module(3)), fold(bent_module(3))

    def network(x: Tensor) -> tuple[Tensor, ...]:
        at_input = one(x)
        h = convolution(x)
        shortcut = one(h) + h.flatten(2).amax(2)[:, :, None, None]
        twice = one(h) * other(h)
        kept = convolution(at_input)
        return at_input, shortcut, twice, kept, one(kept), one(one(convolution(kept))[:, :, 1:]), x

    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic)
    for size in (5, 6):
        x = torch.randn(2, 3, size, 4)
        before = x.clone()
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), network(x))
        assert torch.equal(x, before)


STARTS: dict[str, dict[str, Any]] = {
    "relu": {},
    "gelu": {"init": "gelu"},
    "slopes": {"init": "leaky_relu", "init_slope": torch.tensor([0.1, 2.0, -0.3])},
    "module": {"init": torch.nn.ELU()},
    "identity": {"init": lambda x: x},
}


@pytest.mark.parametrize("start", STARTS)
def test_compiled_through_both_phases(start: str) -> None:
    """The step that realigns the boundaries also ends phase I for the compiled code."""

    def train(compile_it: bool) -> list[list[float]]:
        torch.manual_seed(0)
        module = PWLU(3, 6, **STARTS[start])
        phases = TwoPhaseLearning(module, 2)
        network = torch.compile(module, fullgraph=True, backend="aot_eager") if compile_it else module
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        history = []
        for _ in range(4):
            optimizer.zero_grad()
            (network(torch.randn(8, 3)) - 1).square().mean().backward()
            phases.before_optimizer_step()
            optimizer.step()
            phases.after_optimizer_step()
            history.append([value for p in module.parameters() for value in p.flatten().tolist()])
        with torch.no_grad():
            history.append(network.eval()(torch.randn(8, 3)).flatten().tolist())
        return history

    for compiled, eager in zip(train(compile_it=True), train(compile_it=False), strict=True):
        assert compiled == pytest.approx(eager, rel=1e-5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:pwlu. the operator pwlu..forward is recorded")
def test_exported_program_is_one_operator(device: str, tmp_path: Any) -> None:
    module = bent_module(device=device).eval()
    free = torch.export.Dim.AUTO
    program = torch.export.export(
        module, (torch.randn(2, 3, 4, 5, device=device),), dynamic_shapes=({0: free, 2: free, 3: free},)
    )
    assert operators(program.graph) == [OPERATOR]
    torch.export.save(program, tmp_path / "pwlu.pt2")
    x = torch.randn(7, 3, 6, 2, device=device)
    assert torch.equal(torch.export.load(tmp_path / "pwlu.pt2").module()(x), module(x))
