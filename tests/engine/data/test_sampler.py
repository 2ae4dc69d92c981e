import pytest
import torch

from engine.data.sampler import (
    isolated_rng,
    shuffled_in_windows,
    val_batches,
)


def test_random_numbers_inside_depend_on_the_seed_and_those_after_on_nothing_inside() -> None:
    torch.manual_seed(3)
    torch.randn(1)  # keeps the second of a pair of normal numbers for the next call
    with torch.random.fork_rng(devices=[]):
        expected = torch.randn(5)
    with pytest.raises(KeyError), isolated_rng(7):
        inside = torch.randn(5)
        raise KeyError
    assert torch.equal(inside, torch.randn(5, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(torch.randn(5), expected)


def test_a_window_holds_whole_shuffled_groups() -> None:
    sizes = [5, 1, 7, 3, 4]
    group_of = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))
    seen = set()
    for epoch in range(20):
        order = shuffled_in_windows(sizes, 2, 0, epoch)
        assert torch.equal(order.sort().values, torch.arange(20))
        groups = group_of[order].tolist()
        first, second = groups[0], next(group for group in groups if group != groups[0])
        opening = groups[: sizes[first] + sizes[second]]
        assert sorted(opening) == sorted([first] * sizes[first] + [second] * sizes[second])
        seen.add(tuple(order.tolist()))
    assert len(seen) == 20


@pytest.mark.parametrize("length", [1, 7, 20])
@pytest.mark.parametrize("world_size", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_shares_hold_everything_once(length: int, world_size: int, batch_size: int) -> None:
    shares = [
        val_batches(length, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert [number for share in shares for batch in share for number in batch] == list(range(length))
    assert all(0 < len(batch) <= batch_size for share in shares for batch in share)
    totals = [sum(map(len, share)) for share in shares]
    assert max(totals) - min(totals) <= 1
