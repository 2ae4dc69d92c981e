"""How a global batch is cut into the micro-batches that one device sees at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def derive_accumulation(global_batch_size: int, world_size: int, device_batch_size: int) -> tuple[int, int]:
    """Return (micro_batch_size, accumulation_steps) so that a step sees global_batch_size images exactly.

    The micro-batch is the largest that is no larger than `device_batch_size` and divides a rank's share.
    Raises ValueError where the ranks cannot get equal shares, naming the nearest sizes that work.
    """
    for name, value in (
        ("global_batch_size", global_batch_size),
        ("world_size", world_size),
        ("device_batch_size", device_batch_size),
    ):
        if value < 1:
            raise ValueError(f"{name}: expected 1 or greater, got {value}")
    share, rest = divmod(global_batch_size, world_size)
    if rest:
        raise ValueError(_unequal_shares(global_batch_size, world_size))
    micro_batch_size = max(size for size in range(1, min(device_batch_size, share) + 1) if share % size == 0)
    return micro_batch_size, share // micro_batch_size


def in_steps(micro_batches: Iterable[T], accumulation: int) -> Iterator[list[T]]:
    """Yield the micro-batches of one optimizer step after the other."""
    remaining = iter(micro_batches)
    while step := list(islice(remaining, accumulation)):
        yield step


def _unequal_shares(global_batch_size: int, world_size: int) -> str:
    below = global_batch_size // world_size * world_size
    batches = [str(size) for size in (below, below + world_size) if size > 0]
    divisors = [size for size in range(1, global_batch_size + 1) if global_batch_size % size == 0]
    processes = [max(size for size in divisors if size < world_size)]
    processes += [size for size in divisors if size > world_size][:1]
    return (
        f"global_batch_size={global_batch_size} cannot be shared equally by {world_size} processes; "
        f"the nearest that work: global_batch_size {' or '.join(batches)}, "
        f"or world_size {' or '.join(map(str, processes))}"
    )
