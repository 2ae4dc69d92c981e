"""Interleaved timing: every round runs every rival once, so that disturbances hit all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

Key = TypeVar("Key")
Call = Callable[[], object]
Clock = Callable[[Call], float]  # runs a call and returns its time in seconds


def cpu_clock(call: Call) -> float:
    """Return the seconds that a call takes on a CPU."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(call: Call) -> float:
    """Return the seconds between two events on the current GPU, before a call and after it.

    The GPU is idle before, so that the time of launching the kernels counts as far as the GPU waits for it.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def clock_of(device: torch.device) -> Clock:
    """Return the clock for what runs on `device`."""
    return cuda_clock if device.type == "cuda" else cpu_clock


def interleaved_times(
    rivals: Mapping[Key, Call],
    *,
    iterations: int,
    warm_up: int,
    clock: Clock,
    progress: Callable[[int], object] = lambda finished: None,
) -> dict[Key, list[float]]:
    """Return `iterations` times in seconds for every rival, after `warm_up` rounds that do not count.

    A round runs every rival once, in the order of `rivals`; the i-th times of all belong to one round.
    `progress` is told the number of finished rounds, the warm-up's among them.
    """
    times: dict[Key, list[float]] = {name: [] for name in rivals}
    for round_number in range(1, warm_up + iterations + 1):
        for name, call in rivals.items():
            seconds = clock(call)
            if round_number > warm_up:
                times[name].append(seconds)
        progress(round_number)
    return times


def summarize(times: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """Return percentiles in milliseconds, and the median of the ratios to the baseline of the same round."""
    p10, p50, p90 = (1e3 * float(value) for value in np.percentile(times, (10, 50, 90)))
    ratio = float(np.median(np.divide(times, baseline)))
    return {
        "p50_ms": round(p50, 4),
        "p10_ms": round(p10, 4),
        "p90_ms": round(p90, 4),
        "ratio_to_relu": round(ratio, 4),
    }
