import pytest

from engine.tasks.image_task import derive_accumulation


@pytest.mark.parametrize(
    ("global_batch_size", "world_size", "device_batch_size", "expected"),
    [
        (1024, 16, 64, (64, 1)),
        (1024, 1, 64, (64, 16)),
        (1024, 2, 100, (64, 8)),
        (96, 3, 64, (32, 1)),
        (60, 2, 16, (15, 2)),
        (14, 2, 4, (1, 7)),
        (8, 8, 1, (1, 1)),
    ],
)
def test_the_micro_batch_is_the_largest_that_divides(
    global_batch_size: int, world_size: int, device_batch_size: int, expected: tuple[int, int]
) -> None:
    micro, accumulation = derive_accumulation(global_batch_size, world_size, device_batch_size)
    assert (micro, accumulation) == expected
    assert micro * accumulation * world_size == global_batch_size


def test_unequal_shares_are_refused_with_sizes_that_work() -> None:
    with pytest.raises(ValueError, match=r"1024 .* 3 processes; .*1023 or 1026, or world_size 2 or 4"):
        derive_accumulation(1024, 3, 64)
    with pytest.raises(ValueError, match=r"global_batch_size 3, or world_size 1"):
        derive_accumulation(1, 3, 64)
