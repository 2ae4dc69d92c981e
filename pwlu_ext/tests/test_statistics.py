"""The statistics that phase I collects (Eq. 5): per step, per function, over all of its elements."""

import pytest
import torch

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.training import assert_statistics, batches, feed, mean_and_std


@pytest.mark.parametrize(
    ("groups", "shape", "channel_dim", "dims"),
    [
        (3, (5, 3, 4, 2), 1, (0, 2, 3)),
        (1, (3, 4, 5), 1, (0, 1, 2)),
        (5, (3, 4, 5), -1, (0, 1)),
        (3, (5, 3), -1, (0,)),
        (3, (3,), -1, ()),
        (3, (3, 4, 5), 0, (1, 2)),
        (1, (4,), 1, (0,)),
    ],
)
def test_statistics_of_equation_5(
    groups: int, shape: tuple[int, ...], channel_dim: int, dims: tuple[int, ...]
) -> None:
    """The first step sets them; every later one has a weight of 0.1."""
    module = PWLU(groups, channel_dim=channel_dim)
    phases = TwoPhaseLearning(module, 10)
    mean = std = torch.zeros(groups)
    for step, x in enumerate(batches(3, *shape)):
        new_mean, new_std = mean_and_std(x, dims) if dims else (x, torch.zeros_like(x))
        weight = 0.1 if step else 1.0
        mean, std = (1 - weight) * mean + weight * new_mean, (1 - weight) * std + weight * new_std
        feed(module, phases, [x])
        assert_statistics(module, mean, std)


def test_a_step_counts_all_its_calls_by_their_elements() -> None:
    """Gradient accumulation, or a head that runs on several maps: as if it were one input."""
    whole = torch.cat(batches(3, 4, 2, 6), dim=2)
    parts = [whole[:, :, :1], whole[:0], whole[:, :, 1:7], whole[:, :, 7:7], whole[:, :, 7:]]
    in_parts, at_once = PWLU(2), PWLU(2)
    for module, inputs in ((in_parts, parts), (at_once, [whole])):
        feed(module, TwoPhaseLearning(module, 2), inputs)
    assert_statistics(in_parts, *mean_and_std(whole, (0, 2)))
    assert_statistics(in_parts, at_once.running_mean, at_once.running_std)


def test_a_step_without_input_changes_nothing() -> None:
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 4)
    feed(module, phases, [torch.tensor([[1.0, 2.0], [3.0, 6.0]])], [torch.empty(0, 2)], [])
    assert_statistics(module, torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_statistics_are_of_full_precision(dtype: torch.dtype) -> None:
    """Sums of squares would overflow float16, and cancel in float32."""
    module = PWLU(2)
    x = (1000 + torch.randn(64, 2, 32, generator=torch.Generator().manual_seed(0)) / 4).to(dtype)
    feed(module, TwoPhaseLearning(module, 2), [x[:20], x[20:]])
    mean, std = mean_and_std(x, (0, 2))
    torch.testing.assert_close(module.running_mean, mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(module.running_std, std, rtol=1e-3, atol=0)


def test_channel_that_comes_to_life_late() -> None:
    """Steps in which all inputs were 0 are no start for the statistics."""
    module = PWLU(1)
    x = batches(2, 9, 1)[1]
    feed(module, TwoPhaseLearning(module, 3), [torch.zeros(4, 1)], [x])
    assert_statistics(module, *mean_and_std(x, (0,)))
