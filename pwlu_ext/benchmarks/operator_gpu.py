"""The operator on a GPU against its rivals and the limits of its memory: a record, and the table made of it.

    python pwlu_ext/benchmarks/operator_gpu.py --output results/gpu/operator.json
    python pwlu_ext/benchmarks/operator_gpu.py --device cpu         # every line of it once: a dry run

Times are medians over rounds in which every call of a case runs once, between two events, without a pause.
Each call finds other tensors than the time before, which no cache holds. NOTES.md beside this file has the
limits and what is expected.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from math import ceil
from typing import Any

import torch
from gpu_clock import median_times, peak_mib, rotated, same_bits
from gpu_table import gpu_table
from gpu_targets import described as described_findings
from gpu_targets import findings
from measure import record_path, write_record
from rivals import DTYPES, FORMATS, Calls, Case, inference_calls, operator_calls

# Functions, and the height and width of their images: those of ResNet-50 at 224 px.
SIZES = {64: 56, 256: 28, 2048: 7}
MIDDLE = 256  # the number of functions for what is not measured with every one of them
INTERVALS = (4, 8, 16, 32, 64)
SETS = 3  # of tensors, which the calls take in turns
# mebibytes per tensor, rounds, rounds for warming up
FULL, DRY = (256.0, 100, 10), (0.05, 3, 1)


def shape_of(case: Case, channels: int, mebibytes: float) -> tuple[int, int, int, int]:
    """The smallest batch of images with which a tensor has that many bytes."""
    size = SIZES[channels]
    image_bytes = channels * size * size * DTYPES[case.dtype].itemsize
    return ceil(mebibytes * 2**20 / image_bytes), channels, size, size


def cases() -> Iterator[tuple[Case, int]]:
    """Every case of the first table, with its number of functions."""
    for dtype, layout, channels in product(DTYPES, FORMATS, SIZES):
        yield Case(dtype=dtype, memory_format=layout), channels


def only(calls: Calls, *prefixes: str) -> Calls:
    """The calls whose names begin so."""
    return {name: call for name, call in calls.items() if name.startswith(prefixes)}


def sets_of(make: Callable[..., Calls], case: Case, shape: tuple[int, ...], device: torch.device) -> Calls:
    """The calls that `make` gives, on several sets of tensors in turns."""
    return rotated([make(case, shape, str(device), seed) for seed in range(SETS)])


def compiled_calls(case: Case, shape: tuple[int, ...], device: torch.device) -> Calls:
    """The folded form under torch.compile (which is not worth its minutes in a dry run on a CPU)."""
    backend = "inductor" if device.type == "cuda" else "eager"

    def make(case: Case, shape: tuple[int, ...], device: str, seed: int) -> Calls:
        return only(inference_calls(case, shape, device, seed, backend), "folded compiled")

    torch.compiler.reset()  # each case is compiled anew, below torch's limit of recompilations
    return sets_of(make, case, shape, device)


def measure_case(
    case: Case, channels: int, device: torch.device, settings: tuple[float, int, int]
) -> dict[str, Any]:
    """One row: what it is about, the times of all calls, memory and whether two runs agree to the bit."""
    mebibytes, rounds, warm_up = settings
    shape = shape_of(case, channels, mebibytes)
    calls = sets_of(operator_calls, case, shape, device) | sets_of(inference_calls, case, shape, device)
    if channels == MIDDLE:
        calls |= compiled_calls(case, shape, device)
    row = described(case, shape) | {"milliseconds": median_times(calls, device, rounds, warm_up)}
    single = operator_calls(case, shape, str(device))
    row["same_bits"] = {name: same_bits(call) for name, call in only(single, "pwlu").items()}
    if device.type == "cuda":
        row["peak_mib"] = {name: peak_mib(call, device) for name, call in calls.items()}
    return row


def measure_intervals(
    dtype: str, memory_format: str, device: torch.device, settings: tuple[float, int, int]
) -> list[dict[str, Any]]:
    """Rows of PWLU with different numbers of intervals, in turns with each other."""
    mebibytes, rounds, warm_up = settings
    by_count = [Case(dtype, memory_format, num_intervals=count) for count in INTERVALS]
    shape = shape_of(by_count[0], MIDDLE, mebibytes)
    groups = [only(sets_of(operator_calls, case, shape, device), "pwlu") for case in by_count]
    calls = {(i, name): call for i, group in enumerate(groups) for name, call in group.items()}
    times = median_times(calls, device, rounds, warm_up)
    return [
        described(case, shape) | {"milliseconds": {name: times[i, name] for name in groups[i]}}
        for i, case in enumerate(by_count)
    ]


def described(case: Case, shape: tuple[int, ...]) -> dict[str, Any]:
    """What a row is about, with the bytes of one tensor."""
    count = torch.Size(shape).numel()
    return {"shape": list(shape), **asdict(case), "tensor_bytes": count * DTYPES[case.dtype].itemsize}


def measure_all(device: torch.device, settings: tuple[float, int, int]) -> dict[str, list[dict[str, Any]]]:
    """All sections, with a line of progress for each row."""
    sections: dict[str, list[dict[str, Any]]] = {"cases": [], "intervals": []}
    for case, channels in cases():
        print(f"{case.dtype}, {case.memory_format}, {channels} functions", flush=True)
        sections["cases"].append(measure_case(case, channels, device, settings))
    for dtype, layout in product(DTYPES, FORMATS):
        print(f"{dtype}, {layout}, {INTERVALS[0]} to {INTERVALS[-1]} intervals", flush=True)
        sections["intervals"] += measure_intervals(dtype, layout, device, settings)
    return sections


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    result.add_argument("--mebibytes", type=float, help="bytes of a tensor, at least (256; cpu: 0.05)")
    result.add_argument("--rounds", type=int, help="rounds that count, at least 2 (100; cpu: 3)")
    result.add_argument("--warm-up", type=int, help="rounds before them (10; cpu: 1)")
    result.add_argument(
        "--output", type=record_path, help="JSON record to write; its table is written beside it"
    )
    return result


def settings_of(arguments: argparse.Namespace) -> tuple[float, int, int]:
    """Mebibytes, rounds and rounds for warming up; ValueError if they make no sense."""
    given = (arguments.mebibytes, arguments.rounds, arguments.warm_up)
    defaults = FULL if arguments.device == "cuda" else DRY
    mebibytes, rounds, warm_up = (
        default if value is None else value for value, default in zip(given, defaults, strict=True)
    )
    if mebibytes <= 0 or rounds < 2 or warm_up < 0:
        raise ValueError(
            f"--mebibytes is {mebibytes}, --rounds {rounds} and --warm-up {warm_up}; expected more than 0, "
            "at least 2 and at least 0"
        )
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch finds no usable GPU; --device cpu makes a dry run")
    return mebibytes, rounds, warm_up


def main() -> None:
    """Measure, print and record what the command line asks for."""
    arguments = parser().parse_args()
    try:
        settings = settings_of(arguments)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    device = torch.device(arguments.device)
    sections = measure_all(device, settings)
    if device.type == "cuda":
        sections["targets"] = described_findings(findings(sections))
    described_settings = dict(zip(("mebibytes", "rounds", "warm_up"), settings, strict=True))
    written = {"device": arguments.device, "sets": SETS, **described_settings}
    record = write_record(arguments.output, "operator_gpu", written, sections, arguments.device)
    table = gpu_table(record)
    print(table)
    if arguments.output is not None:
        arguments.output.with_suffix(".md").write_text(table)


if __name__ == "__main__":
    main()
