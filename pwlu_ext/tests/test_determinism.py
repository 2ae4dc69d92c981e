"""The same bits in every run, on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pwlu import pwlu
from pwlu_ext.tests.helpers import evaluate, random_gradient, random_parameters, spread_inputs


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


SHAPES = [(3, 5, 91, 87), (1, 1, 230, 231), (2, 200, 15, 17)]


@pytest.mark.parametrize("groups", ["one", "channels"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_any_number_of_threads(
    threads: None, shape: tuple[int, ...], layout: torch.memory_format, groups: str
) -> None:
    parameters = random_parameters(1 if groups == "one" else shape[1], 16)
    x = spread_inputs(shape, parameters).contiguous(memory_format=layout)
    grad = random_gradient(x)
    torch.set_num_threads(1)
    alone = evaluate(pwlu, x, parameters, grad)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        assert torch.get_num_threads() == count
        assert_same_bits(evaluate(pwlu, x, parameters, grad), alone)


def test_with_deterministic_algorithms_demanded() -> None:
    parameters = random_parameters(3, 16)
    x = spread_inputs((2, 3, 50), parameters)
    torch.use_deterministic_algorithms(True)
    try:
        evaluate(pwlu, x, parameters, random_gradient(x))
    finally:
        torch.use_deterministic_algorithms(False)
