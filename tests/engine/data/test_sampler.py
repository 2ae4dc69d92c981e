import pytest
import torch

from engine.data.sampler import (
    shuffled_in_windows,
    val_batches,
)


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
