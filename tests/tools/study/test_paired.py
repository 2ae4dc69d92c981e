import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.study.paired import Paired, compare_paired, holm


def test_a_comparison_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1, t = 2 sqrt(3). For two degrees of freedom the
    # two-sided p is 1 - t / sqrt(t^2 + 2), and the 97.5 % quantile of t is 4.30265.
    found = compare_paired({0: 11.0, 1: 22.0, 2: 33.0, 9: 0.0}, {2: 30.0, 1: 20.0, 0: 10.0, 8: 5.0})
    t = 2 * math.sqrt(3)
    assert found.seeds == (0, 1, 2) and found.mean == 2 and found.spread == 1
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert (found.low, found.high) == pytest.approx(
        (2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)), rel=1e-5
    )


def test_pairing_removes_what_seeds_share() -> None:
    hard = {0: 50.0, 1: 60.0, 2: 70.0}
    easy = {0: 51.0, 1: 61.1, 2: 70.9}
    assert compare_paired(easy, hard).p < 0.01


def test_with_one_seed_or_equal_differences_there_is_no_test() -> None:
    assert compare_paired({3: 5.0}, {3: 4.0}) == Paired((3,), 1.0)
    assert compare_paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == Paired((0, 1), 0.0, 0.0)
    correct = {0: 2731, 1: 2650, 2: 2702}  # of 3925, the other side 10 more each: equal but for rounding
    percent = [{seed: 100 * (n + more) / 3925 for seed, n in correct.items()} for more in (10, 0)]
    assert compare_paired(*percent).p is None


def test_without_a_common_seed_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"no seed in common: \[0\] and \[1\]"):
        compare_paired({0: 1.0}, {1: 1.0})


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([None, 0.01, None]) == [None, pytest.approx(0.03), None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(values: list[float]) -> None:
    corrected = holm(values)
    for before, after in zip(values, corrected, strict=True):
        assert before <= after <= min(1.0, before * len(values)) + 1e-15
    in_order = [after for _, after in sorted(zip(values, corrected, strict=True))]
    assert in_order == sorted(corrected)
