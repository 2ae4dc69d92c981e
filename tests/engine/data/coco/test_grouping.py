import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.coco.grouping import GROUP_SIZE, grouped_order
from tests.engine.data.coco.laws import lawful

ratios = st.lists(st.sampled_from([0.5, 0.99, 1.0, 1.01, 2.0]), min_size=1, max_size=60).map(torch.tensor)


@lawful
@given(ratios, st.integers(0, 5), st.integers(0, 5))
def test_pairs_are_of_one_orientation_and_images_come_once(
    aspect_ratios: torch.Tensor, seed: int, epoch: int
) -> None:
    order = grouped_order(aspect_ratios, seed, epoch)
    assert order.dtype == torch.int64
    assert len(set(order.tolist())) == len(order) == len(aspect_ratios) // 2 * 2
    wide = (aspect_ratios > 1)[order].view(-1, GROUP_SIZE)
    mixed = int((wide.any(1) & ~wide.all(1)).sum())
    odd = [int(((aspect_ratios > 1) == orientation).sum()) % 2 for orientation in (True, False)]
    assert mixed == (sum(odd) == 2)


def test_epochs_and_seeds_pair_and_order_anew() -> None:
    aspect_ratios = torch.tensor([0.7, 1.3, 1.5] * 20)
    orders = [grouped_order(aspect_ratios, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert torch.equal(orders[0], grouped_order(aspect_ratios, 0, 0))
    pairs = [{frozenset(pair) for pair in order.view(-1, 2).tolist()} for order in orders]
    for other in (1, 2):
        assert len(pairs[0] & pairs[other]) < 10
    # wide and tall pairs are mixed, not one after the other
    wide = (aspect_ratios[orders[0]] > 1).view(-1, 2)[:, 0]
    assert 8 < int(wide[:20].sum()) < 19


def test_every_image_of_an_odd_number_has_its_turn() -> None:
    aspect_ratios = torch.full((5,), 2.0)
    missing = {
        (set(range(5)) - set(grouped_order(aspect_ratios, 0, epoch).tolist())).pop() for epoch in range(40)
    }
    assert missing == set(range(5))


def test_the_only_high_image_has_its_turn() -> None:
    aspect_ratios = torch.tensor([1.5, 1.5, 0.7, 1.5])
    assert all(2 in grouped_order(aspect_ratios, 0, epoch) for epoch in range(10))


def test_the_order_leaves_the_global_rng_alone() -> None:
    before = torch.get_rng_state()
    grouped_order(torch.tensor([0.5, 2.0] * 10), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
