import pytest
import torch

from engine.data.sampler import (
    isolated_rng,
    mix_seed,
    shuffled,
    shuffled_in_windows,
    train_batches,
    val_batches,
)


def batches_of(order: torch.Tensor, rank: int, world_size: int, start_step: int = 0, micro: int = 2) -> list:
    return train_batches(
        order,
        start_step=start_step,
        global_batch_size=12,
        micro_batch_size=micro,
        rank=rank,
        world_size=world_size,
    )


def test_seeds_differ_between_neighbours_and_fit_a_generator() -> None:
    seeds = {mix_seed(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(50)}
    assert len(seeds) == 4 * 4 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 23) != mix_seed(12, 3)


def test_isolated_rng_repeats_its_numbers_and_leaves_the_global_ones_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng(1):
        first = torch.rand(3)
    with isolated_rng(1):
        assert torch.equal(torch.rand(3), first)
    with isolated_rng(2):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(3), expected)


def test_the_order_depends_on_seed_and_epoch() -> None:
    order = shuffled(50, 0, 0)
    assert torch.equal(order.sort().values, torch.arange(50))
    assert torch.equal(order, shuffled(50, 0, 0))
    assert not torch.equal(order, shuffled(50, 0, 1))
    assert not torch.equal(order, shuffled(50, 1, 0))


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


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_a_step_consumes_the_same_samples_on_any_number_of_ranks(world_size: int) -> None:
    order = shuffled(64, 0, 0)
    per_rank = [batches_of(order, rank, world_size) for rank in range(world_size)]
    count = 12 // world_size // 2
    for step in range(5):
        share = [batches[step * count : (step + 1) * count] for batches in per_rank]
        samples = [sample for batches in share for batch in batches for sample in batch]
        assert samples == order[step * 12 : step * 12 + 12].tolist()
        assert all(len(batch) == 2 for batches in share for batch in batches)
    assert {len(batches) for batches in per_rank} == {5 * count}


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
