"""Who reads which sample when: pure functions of (seed, epoch) and of the process's rank."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def mix_seed(*parts: int) -> int:
    """Return a 63-bit seed for a tuple of integers, unrelated to that of any neighbouring tuple."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Let torch's global CPU generator start from `seed` inside, and put its state back afterwards.

    torchvision's transforms know no other generator. torch.manual_seed would reseed the GPUs as well.
    """
    # As torch.random.fork_rng(devices=[]), which asks for the accelerator first: 11 us for each small image.
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def shuffled(length: int, seed: int, epoch: int) -> torch.Tensor:
    """Return a random permutation of range(length), int64, that depends on (seed, epoch)."""
    return torch.randperm(length, generator=_generator(seed, epoch))


def shuffled_in_windows(sizes: Sequence[int], window: int, seed: int, epoch: int) -> torch.Tensor:
    """Return a permutation of range(sum(sizes)) that visits consecutive groups of samples a few at a time.

    `sizes` are the groups' lengths (samples per shard). The groups are shuffled, and all samples of each
    `window` groups in a row are shuffled together, so that only few files are read at a time.
    """
    generator = _generator(seed, epoch)
    groups = torch.split(torch.arange(sum(sizes)), list(sizes))
    order = torch.randperm(len(groups), generator=generator).tolist()
    windows = []
    for first in range(0, len(order), window):
        samples = torch.cat([groups[group] for group in order[first : first + window]])
        windows.append(samples[torch.randperm(len(samples), generator=generator)])
    return torch.cat(windows)


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix_seed(seed, epoch))


def train_batches(
    order: torch.Tensor,
    *,
    start_step: int,
    global_batch_size: int,
    micro_batch_size: int,
    rank: int,
    world_size: int,
) -> list[list[int]]:
    """Return one rank's micro-batches, as sample numbers, from `start_step` to the end of the epoch.

    Step s consumes order[s * global_batch_size : (s + 1) * global_batch_size], whatever the number of ranks;
    the rest of `order` that fills no step is left out. `global_batch_size` is a multiple of `world_size`
    times `micro_batch_size`.
    """
    steps = len(order) // global_batch_size
    cut = order[: steps * global_batch_size].view(steps, world_size, -1, micro_batch_size)
    batches: list[list[int]] = cut[start_step:, rank].flatten(0, 1).tolist()
    return batches


def val_batches(length: int, *, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """Return one rank's share of range(length) in batches; every number is in exactly one share.

    Shares are contiguous and differ by at most one sample; the last batch may be short, a share may be empty.
    """
    first, last = length * rank // world_size, length * (rank + 1) // world_size
    count = math.ceil((last - first) / batch_size)
    starts = [first + number * batch_size for number in range(count)]
    return [list(range(start, min(start + batch_size, last))) for start in starts]
