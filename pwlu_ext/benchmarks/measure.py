"""Interleaved timing, peak memory of a GPU, and records that say where a number comes from."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import pwlu
from engine.files import write_text_atomically
from engine.runs.manifest import describe_code, describe_hardware, short_commit

Key = TypeVar("Key")
Call = Callable[[], object]
Clock = Callable[[Call], float]  # runs a call and returns its time in seconds
FILLER_BYTES = 2**30


def cpu_clock(call: Call) -> float:
    """Return the seconds that a call takes on a CPU."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(call: Call, before: Call = lambda: None) -> float:
    """Return the seconds between an event before a call and one after it, on the current GPU.

    The time of launching the kernels counts as far as the GPU waits for it: all of it where the GPU is idle,
    nothing where `before` keeps it busy.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    before()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def clock_of(device: torch.device) -> Clock:
    """Return the clock for networks on `device`, with the time of launching their kernels."""
    return cuda_clock if device.type == "cuda" else cpu_clock


def kernel_clock_of(device: torch.device) -> Clock:
    """Return the clock for single kernels on `device`; on a GPU their launch does not count."""
    if device.type != "cuda":
        return cpu_clock
    source, target = (torch.empty(FILLER_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    # The call is queued while the GPU copies, and the copy evicts its tensors from the cache.
    return lambda call: cuda_clock(call, before=lambda: target.copy_(source))


def interleaved_times(
    calls: Mapping[Key, Call],
    *,
    rounds: int,
    warm_up: int,
    clock: Clock,
    progress: Callable[[int], object] = lambda finished: None,
) -> dict[Key, list[float]]:
    """Return `rounds` times in seconds for every call, after `warm_up` rounds that do not count.

    A round runs every call once, in the order of `calls`, so that a disturbance of the machine hits all of
    them; the i-th times of all belong to one round. `progress` gets the number of finished rounds, with the
    warm-up's.
    """
    # torch.utils.benchmark and triton.testing.do_bench time one call after the other.
    times: dict[Key, list[float]] = {name: [] for name in calls}
    for round_number in range(1, warm_up + rounds + 1):
        for name, call in calls.items():
            seconds = clock(call)
            if round_number > warm_up:
                times[name].append(seconds)
        progress(round_number)
    return times


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the 10th, 50th and 90th percentile in milliseconds."""
    values = torch.tensor(seconds, dtype=torch.float64)
    p10, p50, p90 = (1e3 * values.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))).tolist()
    return p10, p50, p90


def allocated_bytes(device: torch.device) -> int | None:
    """Return the bytes of tensors on a GPU; None for a CPU, whose memory torch does not count."""
    if device.type != "cuda":
        return None
    # The first product of matrices allocates cuBLAS's workspace, which is no part of the first call measured.
    torch.mm(*(torch.ones((16, 16), device=device) for _ in range(2)))
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


def peak_mib(call: Call, others_bytes: int) -> float:
    """Return the most memory in use during a call on the current GPU in MiB, without `others_bytes`."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - others_bytes) / 2**20, 1)


def kept_mib(forward: Callable[[], Tensor]) -> float:
    """Return the MiB of tensors that a forward pass keeps for the backward one, without parameters."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()  # holds what was kept: no two tensors share an address
    del output
    return sum(sizes.values()) / 2**20


def environment(device: torch.device) -> dict[str, Any]:
    """Return where and with what a measurement was made, as plain values."""
    code, hardware = describe_code(), describe_hardware(device)
    found = {
        "commit": short_commit(code, digits=40),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": hardware["cpu"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pwlu": pwlu.build_info(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "l2_mib": round(properties.L2_cache_size / 2**20, 1),
            "cuda": torch.version.cuda,
        }
    return found


def write_record(output: Path | None, record: Mapping[str, Any], page: str) -> None:
    """Print a page; write record and page to `output` with the suffixes .json and .md unless that is None."""
    print(page)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(output.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
        write_text_atomically(output.with_suffix(".md"), page)
