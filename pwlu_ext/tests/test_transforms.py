"""torch.func and forward-mode differentiation: right or an error, but no derivative is silently zero."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, functional
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from pwlu import PWLU, TwoPhaseLearning, pwlu, pwlu_reference
from pwlu_ext.tests.helpers import random_parameters, spread_inputs


@pytest.fixture
def case() -> tuple[Tensor, ...]:
    parameters = random_parameters(3, 4, torch.float64)
    return spread_inputs((2, 3, 5), parameters, dtype=torch.float64), *parameters


def total(*arguments: Tensor) -> Tensor:
    return pwlu(*arguments).square().sum()


ALL = tuple(range(6))


def operator(*arguments: Tensor) -> Tensor:
    """Past the function `pwlu`."""
    return torch.ops.pwlu.forward(*arguments, 1)


def tangents_of(case: tuple[Tensor, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in case]


@pytest.mark.parametrize("function", [pwlu, operator])
@pytest.mark.parametrize("grad_enabled", [False, True])
@pytest.mark.parametrize("argument", range(6))
def test_forward_mode(
    case: tuple[Tensor, ...], argument: int, grad_enabled: bool, function: Callable[..., Tensor]
) -> None:
    tangent = tangents_of(case)[argument]
    carried = []
    with forward_ad.dual_level(), torch.set_grad_enabled(grad_enabled):
        for carry in (function, pwlu_reference):
            duals = [tensor.clone().requires_grad_(grad_enabled) for tensor in case]
            duals[argument] = forward_ad.make_dual(duals[argument], tangent)
            carried.append(forward_ad.unpack_dual(carry(*duals)).tangent)
    assert carried[0] is not None and carried[0].any()
    torch.testing.assert_close(*carried)


def test_operator_passes_gradcheck_in_forward_mode(case: tuple[Tensor, ...]) -> None:
    arguments = [tensor.requires_grad_() for tensor in case]
    torch.autograd.gradcheck(operator, arguments, check_forward_ad=True, check_batched_grad=True)
    torch.autograd.gradgradcheck(operator, arguments, check_fwd_over_rev=True)


@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_pass_carries_tangents(case: tuple[Tensor, ...], create_graph: bool) -> None:
    """Of an upper gradient, through a graph that was recorded before."""
    arguments = [tensor.requires_grad_() for tensor in case]
    upper = spread_inputs((2, 3, 5), case[1:], dtype=torch.float64)
    carried = []
    for function in (pwlu, pwlu_reference):
        y = function(*arguments)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(torch.ones_like(y), upper)
            gradients = torch.autograd.grad(y, arguments, dual, create_graph=create_graph)
            carried.append([forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
    for actual, expected in zip(*carried, strict=True):
        assert actual is not None and actual.any()
        torch.testing.assert_close(actual, expected)


def test_backward_operator_carries_tangents(case: tuple[Tensor, ...]) -> None:
    """Compared with finite differences, and without a graph where nothing wants one."""
    upper = spread_inputs((2, 3, 5), case[1:], dtype=torch.float64)
    tangents = tangents_of(case)
    with forward_ad.dual_level():
        duals = map(forward_ad.make_dual, case, tangents)
        carried = list(map(forward_ad.unpack_dual, torch.ops.pwlu.backward(upper, *duals, 1)))
    assert not any(gradient.tangent.requires_grad for gradient in carried)
    ahead, behind = (
        torch.ops.pwlu.backward(upper, *(a + s * t for a, t in zip(case, tangents, strict=True)), 1)
        for s in (1e-6, -1e-6)
    )
    for gradient, plus, minus in zip(carried, ahead, behind, strict=True):
        torch.testing.assert_close(gradient.tangent, (plus - minus) / 2e-6, rtol=1e-6, atol=1e-7)


def test_transforms_of_the_operators(case: tuple[Tensor, ...]) -> None:
    x, *parameters = case
    actual = grad(lambda x: operator(x, *parameters).square().sum())(x)
    torch.testing.assert_close(actual, grad(lambda x: total(x, *parameters))(x))
    with pytest.raises(NotImplementedError, match="torch.func cannot transform it; transform pwlu.pwlu"):
        jvp(lambda x: torch.ops.pwlu.backward(x, x, *parameters, 1)[0], (x,), (x,))


TRANSFORMS = {
    "grad": lambda f, case: grad(lambda *a: f(*a).square().sum(), argnums=ALL)(*case),
    "jacrev": lambda f, case: jacrev(f, argnums=ALL)(*case),
    "jacfwd": lambda f, case: jacfwd(f, argnums=ALL)(*case),
    "hessian": lambda f, case: hessian(lambda *a: f(*a).square().sum(), argnums=ALL)(*case),
    "jvp": lambda f, case: functional.jvp(f, case, tuple(tangents_of(case)))[1],
    "hvp": lambda f, case: functional.hvp(lambda *a: f(*a).pow(3).sum(), case, tuple(tangents_of(case)))[1],
    "vhp": lambda f, case: functional.vhp(lambda *a: f(*a).pow(3).sum(), case, tuple(tangents_of(case)))[1],
    "vectorized jacobian": lambda f, case: functional.jacobian(f, case, vectorize=True),
    "forward jacobian": lambda f, case: functional.jacobian(f, case, vectorize=True, strategy="forward-mode"),
    "vectorized hessian": lambda f, case: functional.hessian(
        lambda *a: f(*a).pow(3).sum(), case, vectorize=True
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_equal_those_of_the_reference(
    case: tuple[Tensor, ...], transform: Callable[..., object]
) -> None:
    torch.testing.assert_close(transform(pwlu, case), transform(pwlu_reference, case))


def test_vmap_over_inputs_and_over_functions(case: tuple[Tensor, ...]) -> None:
    x, *parameters = case
    several = torch.stack([x, 2 * x, -x])
    expected = torch.stack([pwlu(one, *parameters) for one in several])
    torch.testing.assert_close(vmap(lambda one: pwlu(one, *parameters))(several), expected)
    ensemble = [torch.stack([p, p * 1.1]) for p in parameters]
    expected = torch.stack([pwlu(x, *(p[i] for p in ensemble)) for i in range(2)])
    torch.testing.assert_close(vmap(pwlu, in_dims=(None, 0, 0, 0, 0, 0))(x, *ensemble), expected)


def test_gradients_per_sample() -> None:
    module = PWLU(3, 4, dtype=torch.float64)
    x = torch.randn(6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = {name: p.detach() for name, p in module.named_parameters()}

    def loss(state: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(module, state, (sample[None],)).square().sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(state, x)
    for i, sample in enumerate(x):
        module.zero_grad()
        module(sample[None]).square().sum().backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(per_sample[name][i], parameter.grad, msg=name)


def test_compiled_transform(case: tuple[Tensor, ...]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(grad(total), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*case), grad(total)(*case))


def test_phase_1_refuses() -> None:
    """It writes statistics, which a transform cannot follow."""
    module = PWLU(3)
    TwoPhaseLearning(module, 1)
    x = torch.randn(2, 3)
    with pytest.raises(RuntimeError):
        grad(lambda x: module(x).sum())(x)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError):
        module(forward_ad.make_dual(x, torch.ones_like(x)))
