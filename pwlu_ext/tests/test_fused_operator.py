"""PWLU(BatchNorm(x)), with and without a shortcut, against F.batch_norm and the reference in float64."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pwlu import pwlu_reference
from pwlu.fused.operator import Norm, Source, normalized, normalized_reference
from pwlu.moments import moments
from pwlu_ext.tests.helpers import NAMES, random_gradient, random_parameters
from pwlu_ext.tests.test_properties import reproducible

EPS = 1e-5
ADDED = ["nothing", "shortcut", "normalized shortcut"]
# Shapes with numbers of intervals: kernels differ with those that one or two registers hold.
CASES = [
    *(((4, 5, 7, 9), 6), ((4, 5, 7, 9), 24), ((3, 70, 5, 5), 16), ((3, 70, 5, 5), 40)),
    *(((2, 16, 1, 33), 24), ((300, 3), 16), ((2, 1, 4, 4), 40), ((2, 3, 2, 3, 4), 1)),
]
PRECISIONS = {torch.float64: 1e-10, torch.float32: 2e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Problem:
    """Terms, weights (one is 0, some are negative) and biases of their BatchNorms, functions, a gradient."""

    def __init__(
        self,
        shape: Sequence[int],
        num_intervals: int,
        added: str,
        dtype: torch.dtype,
        seed: int = 0,
        device: str = "cpu",
        groups: int | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

        channels = shape[1]
        self.wide = torch.promote_types(dtype, torch.float32)
        self.terms = [(2 * normal(*shape) + 5).to(dtype) for _ in range(1 + (added != "nothing"))]
        num_norms = 2 if added == "normalized shortcut" else 1
        self.affines = [
            (normal(channels).to(self.wide), normal(channels).to(self.wide)) for _ in range(num_norms)
        ]
        self.affines[0][0][0] = 0
        self.parameters = random_parameters(groups or channels, num_intervals, self.wide, device, seed)
        self.grad = random_gradient(self.terms[0])

    def in_order(self, memory_format: torch.memory_format) -> "Problem":
        self.terms = [t.contiguous(memory_format=memory_format) for t in self.terms]
        return self

    def names(self) -> list[str]:
        terms = ["x", "shortcut"][: len(self.terms)]
        return [*terms, *NAMES, *(f"{n}{i}" for i in range(len(self.affines)) for n in ("weight", "bias"))]

    def inputs(self) -> list[Tensor]:
        return [*self.terms, *self.parameters, *chain.from_iterable(self.affines)]

    def fused(self, of_batch: bool = True) -> dict[str, Tensor]:
        inputs = [t.detach().requires_grad_() for t in self.inputs()]
        terms, parameters = inputs[: len(self.terms)], inputs[len(self.terms) : len(self.terms) + 5]
        affine = inputs[len(self.terms) + 5 :]
        norms = [
            norm_of(term, *affine[2 * i : 2 * i + 2], of_batch)
            for i, term in enumerate(terms[: len(self.affines)])
        ]
        y = normalized(terms, norms, parameters)
        assert y.dtype == self.grad.dtype and y.stride() == terms[0].stride()
        return {"y": y, **dict(zip(self.names(), torch.autograd.grad(y, inputs, self.grad), strict=True))}

    def expected(self, of_batch: bool = True) -> dict[str, Tensor]:
        inputs = [t.detach().double().requires_grad_() for t in self.inputs()]
        terms, parameters = inputs[: len(self.terms)], inputs[len(self.terms) : len(self.terms) + 5]
        affine = inputs[len(self.terms) + 5 :]
        z = torch.zeros((), dtype=torch.float64)
        for term, numbers in zip_longest(terms, zip(affine[::2], affine[1::2], strict=True)):
            if numbers is None:
                z = z + term
            elif of_batch:
                z = z + F.batch_norm(term, None, None, *numbers, training=True, eps=EPS)
            else:
                z = z + F.batch_norm(term, *constants(term), *numbers, training=False, eps=EPS)
        y = pwlu_reference(z, *parameters)
        gradients = torch.autograd.grad(y, inputs, self.grad.double())
        return {"y": y, **dict(zip(self.names(), gradients, strict=True))}


def in_memory(x: Tensor, order: list[int]) -> Tensor:
    """x, whose dimensions lie in memory in this order."""
    return x.permute(order).contiguous().permute([order.index(dim) for dim in range(4)])


def constants(x: Tensor) -> tuple[Tensor, Tensor]:
    """Running statistics that are not the batch's."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    channels = torch.arange(x.shape[1], dtype=dtype, device=x.device)
    return 5 + channels % 3 / 8, 1 + channels % 5 / 4


def norm_of(x: Tensor, weight: Tensor, bias: Tensor, of_batch: bool = True) -> Norm:
    mean, variance = moments(x) if of_batch else constants(x)
    return Norm(weight, bias, mean, (variance + EPS).rsqrt(), Source(EPS, of_batch))


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], precision: float) -> None:
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(
            actual[name].double(),
            value,
            rtol=0,
            atol=precision * scale,
            msg=lambda text, n=name: f"{n}: {text}",
        )


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("shape", "num_intervals"), CASES, ids=str)
def test_equals_both_apart(
    shape: tuple[int, ...], num_intervals: int, dtype: torch.dtype, added: str, device: str
) -> None:
    problem = Problem(shape, num_intervals, added, dtype, device=device)
    for memory_format in (torch.contiguous_format, torch.channels_last)[: 1 + (len(shape) == 4)]:
        problem.in_order(memory_format)
        assert_equal(problem.fused(), problem.expected(), PRECISIONS[dtype])


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("shape", "num_intervals"), CASES, ids=str)
def test_one_function_for_all_channels(
    shape: tuple[int, ...], num_intervals: int, dtype: torch.dtype, added: str
) -> None:
    problem = Problem(shape, num_intervals, added, dtype, groups=1)
    for memory_format in (torch.contiguous_format, torch.channels_last)[: 1 + (len(shape) == 4)]:
        problem.in_order(memory_format)
        assert_equal(problem.fused(), problem.expected(), PRECISIONS[dtype])


@pytest.mark.parametrize("added", ADDED)
def test_constants_in_place_of_the_batchs_statistics(added: str, device: str) -> None:
    problem = Problem((4, 5, 3, 3), 6, added, torch.float64, device=device)
    assert_equal(problem.fused(of_batch=False), problem.expected(of_batch=False), 1e-10)


@reproducible
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.integers(1, 24),
    st.sampled_from(ADDED),
    st.integers(0, 10**6),
    st.permutations([0, 1, 2, 3]),
    st.permutations([0, 1, 2, 3]),
)
def test_any_shape_and_memory_orders(
    shape: list[int], num_intervals: int, added: str, seed: int, first: list[int], second: list[int]
) -> None:
    shape[0] += 1  # a variance needs two
    problem = Problem(shape, num_intervals, added, torch.float64, seed)
    if len(shape) == 4:
        orders = (first, second)
        problem.terms = [in_memory(t, order) for t, order in zip(problem.terms, orders, strict=False)]
    assert_equal(problem.fused(), problem.expected(), 1e-7)


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("of_batch", [True, False])
def test_gradients_of_gradients(added: str, of_batch: bool) -> None:
    problem = Problem((3, 2, 2), 3, added, torch.float64)
    num_terms = len(problem.terms)

    def function(*inputs: Tensor) -> Tensor:
        terms, rest = inputs[:num_terms], inputs[num_terms:]
        norms = [
            norm_of(term, *rest[5 + 2 * i : 7 + 2 * i], of_batch)
            for i, term in enumerate(terms[: len(problem.affines)])
        ]
        return normalized(terms, norms, rest[:5])

    inputs = [t.detach().requires_grad_() for t in problem.inputs()]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_far_from_zero_nothing_cancels(memory_format: torch.memory_format, device: str) -> None:
    """Mean 1000, deviation 0.1: what a float32 sum of squares would lose. The first elements are far off."""
    x = 1000 + 0.1 * torch.randn(64, 20, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:2, :, :2] = -1e4
    x = x.contiguous(memory_format=memory_format).to(device)
    mean, variance = moments(x)
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var((0, 2, 3), correction=0), rtol=1e-5, atol=0)
    mean, variance = moments(x[2:])
    torch.testing.assert_close(variance.double(), exact[2:].var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_far_from_zero(memory_format: torch.memory_format, device: str) -> None:
    """Deviation 1: the mean is taken away before anything is multiplied."""
    problem = Problem((16, 6, 8, 8), 8, "normalized shortcut", torch.float32, device=device)
    problem.terms = [t + 100 for t in problem.terms]
    problem.in_order(memory_format)
    assert_equal(problem.fused(), problem.expected(), 2e-4)


def test_channels_that_are_constant_have_no_variance(device: str) -> None:
    x = torch.tensor([0.0, 0.1, -1e30]).reshape(1, 3, 1, 1).expand(7, 3, 5, 5).to(device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        mean, variance = moments(x.contiguous(memory_format=memory_format))
        assert torch.equal(mean, x[0, :, 0, 0]) and not variance.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("added", ADDED)
def test_what_is_not_finite_goes_where_it_would_go_apart(value: float, added: str, device: str) -> None:
    problem = Problem((4, 3, 2, 2), 5, added, torch.float64, device=device)
    for term in problem.terms:
        problem.in_order(torch.contiguous_format)
        kept, term[1, 1, 0, 0] = term[1, 1, 0, 0].item(), value
        actual, expected = problem.fused(), problem.expected()
        for name, wanted in expected.items():
            assert torch.equal(actual[name].isfinite(), wanted.isfinite()), name
            assert torch.equal(actual[name].isnan(), wanted.isnan()), name
        term[1, 1, 0, 0] = kept


def test_two_runs_and_any_number_of_threads_give_the_same_bits() -> None:
    for shape in ((8, 96, 24, 24), (16, 3, 160, 160)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            problem = Problem(shape, 16, "normalized shortcut", torch.float32).in_order(memory_format)
            threads = torch.get_num_threads()
            results = []
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                results.append(problem.fused())
            torch.set_num_threads(threads)
            for other in results[1:]:
                assert all(torch.equal(other[name], value) for name, value in results[0].items())


def test_the_reference_is_the_same_function() -> None:
    problem = Problem((4, 5, 3, 3), 6, "normalized shortcut", torch.float64)
    norms = [norm_of(t, *a) for t, a in zip(problem.terms, problem.affines, strict=True)]
    arguments = (problem.terms, norms, problem.parameters)
    torch.testing.assert_close(normalized_reference(*arguments), normalized(*arguments))


def test_errors_name_what_is_wrong() -> None:
    problem = Problem((4, 5, 3, 3), 6, "shortcut", torch.float32)
    norm = norm_of(problem.terms[0], *problem.affines[0])
    with pytest.raises(ValueError, match="`shortcut` must have the shape"):
        normalized([problem.terms[0], problem.terms[1][:2]], [norm], problem.parameters)
    with pytest.raises(ValueError, match="`weight` must be float32"):
        normalized(problem.terms, [norm._replace(weight=norm.weight.double())], problem.parameters)
    with pytest.raises(ValueError, match="has 5 channels in dimension 1, but the parameters are for 3"):
        normalized(problem.terms, [norm], random_parameters(3, 6))
