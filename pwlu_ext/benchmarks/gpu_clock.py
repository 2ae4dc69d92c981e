"""The time of kernels on a GPU: events around calls that wait in a queue, so that no launch is waited for."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TypeVar

import torch
from rivals import Calls
from torch import Tensor

Key = TypeVar("Key")
FILLER_BYTES = 2**30  # copied a few times at the start of a round: milliseconds in which its calls queue up
FILLER_COPIES = 8


def rotated(sets: Sequence[Calls]) -> Calls:
    """Calls that take the next of several sets of tensors each time, so that none is found in a cache."""

    def one_after_another(name: str) -> Callable[[], object]:
        turns = cycle([calls[name] for calls in sets])
        return lambda: next(turns)()

    return {name: one_after_another(name) for name in sets[0]}


def filler(device: torch.device) -> Callable[[], object]:
    """What keeps the device busy while a round is put into its queue; nothing on a CPU, which has none."""
    if device.type == "cpu":
        return lambda: None
    source, target = (torch.empty(FILLER_BYTES, dtype=torch.uint8, device=device) for _ in range(2))

    def fill() -> None:
        for _ in range(FILLER_COPIES):
            target.copy_(source)

    return fill


def cuda_round(calls: Mapping[Key, Callable[[], object]], fill: Callable[[], object]) -> dict[Key, float]:
    """Seconds of every call, each called once, in this order, without a pause between them."""
    events = {name: [torch.cuda.Event(enable_timing=True) for _ in range(2)] for name in calls}
    fill()
    for name, call in calls.items():
        events[name][0].record()
        call()
        events[name][1].record()
    torch.cuda.synchronize()
    return {name: start.elapsed_time(end) / 1e3 for name, (start, end) in events.items()}


def cpu_round(calls: Mapping[Key, Callable[[], object]], fill: Callable[[], object]) -> dict[Key, float]:
    """The same on a CPU."""
    fill()
    seconds = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - start
    return seconds


def median_times(
    calls: Mapping[Key, Callable[[], object]], device: torch.device, rounds: int, warm_up: int
) -> dict[Key, dict[str, float]]:
    """Milliseconds of each call, p50, p10 and p90 of `rounds` interleaved rounds after `warm_up` others."""
    one_round = cpu_round if device.type == "cpu" else cuda_round
    fill = filler(device)
    kept = [one_round(calls, fill) for _ in range(warm_up + rounds)][warm_up:]
    return {name: spread([seconds[name] for seconds in kept]) for name in calls}


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the tenth and ninetieth percentile in milliseconds."""
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    values = {"p50": statistics.median(seconds), "p10": tenths[0], "p90": tenths[-1]}
    return {name: round(1e3 * value, 5) for name, value in values.items()}


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """How much more of the GPU's memory is in use at the worst moment of a call than before it, in MiB."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 3)


def same_bits(call: Callable[[], Tensor | tuple[Tensor, ...]]) -> bool:
    """Whether two calls give the same bits, in every tensor that they return."""
    first, second = (as_tuple(call()) for _ in range(2))
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(first, second, strict=True))


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One or several tensors as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def bits(tensor: Tensor) -> Tensor:
    """Its memory as integers: a NaN equals itself there, and 0 is not -0."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(integers[tensor.element_size()])
