"""torch.func and forward-mode differentiation: right or an error, but no derivative is silently zero."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from pwlu import PWLU, TwoPhaseLearning, pwlu, pwlu_reference
from pwlu_ext.tests.helpers import evaluate, random_parameters, spread_inputs


@pytest.fixture
def case() -> tuple[Tensor, ...]:
    parameters = random_parameters(3, 4, torch.float64)
    return spread_inputs((2, 3, 5), parameters, dtype=torch.float64), *parameters


def total(*arguments: Tensor) -> Tensor:
    return pwlu(*arguments).square().sum()


def test_grad(case: tuple[Tensor, ...]) -> None:
    expected = evaluate(pwlu, case[0], case[1:], 2 * pwlu(*case))
    actual = grad(total, argnums=tuple(range(6)))(*case)
    for value, name in zip(actual, list(expected)[1:], strict=True):
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("argument", range(6))
def test_forward_mode(case: tuple[Tensor, ...], argument: int) -> None:
    """The directional derivative equals that of reverse mode, for a tangent of any argument."""
    generator = torch.Generator().manual_seed(0)
    tangent = torch.randn(case[argument].shape, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(pwlu, case)[argument]
    expected = jacobian.flatten(3) @ tangent.flatten()
    assert expected.any()
    with forward_ad.dual_level():
        duals = list(case)
        duals[argument] = forward_ad.make_dual(case[argument], tangent)
        y = forward_ad.unpack_dual(pwlu(*duals))
    assert y.tangent is not None
    torch.testing.assert_close(y.tangent, expected)
    torch.testing.assert_close(y.primal, pwlu(*case))


def test_jvp_and_vjp(case: tuple[Tensor, ...]) -> None:
    tangents = tuple(torch.ones_like(tensor) for tensor in case)
    y, along = jvp(pwlu, case, tangents)
    gradients = vjp(pwlu, *case)[1](torch.ones_like(y))
    assert along.sum().item() == pytest.approx(sum(g.sum() for g in gradients).item(), rel=1e-10)


def test_jacobians(case: tuple[Tensor, ...]) -> None:
    expected = torch.autograd.functional.jacobian(pwlu, case)
    for transform in (jacrev, jacfwd):
        for actual, wanted in zip(transform(pwlu, argnums=tuple(range(6)))(*case), expected, strict=True):
            torch.testing.assert_close(actual, wanted)


def test_hessian(case: tuple[Tensor, ...]) -> None:
    expected = torch.autograd.functional.hessian(lambda *a: pwlu_reference(*a).square().sum(), case)
    actual = hessian(total, argnums=tuple(range(6)))(*case)
    for row, wanted_row in zip(actual, expected, strict=True):
        for value, wanted in zip(row, wanted_row, strict=True):
            torch.testing.assert_close(value, wanted)


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
