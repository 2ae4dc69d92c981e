"""Measure the operator on a GPU beside other activation functions: a record and a page of tables.

python -m pwlu_ext.benchmarks.operator_gpu --output results/benchmarks/operator_gpu.json
python -m pwlu_ext.benchmarks.operator_gpu --device cpu    # a dry run, whose numbers mean nothing
"""

import argparse
from collections.abc import Mapping
from itertools import product
from math import ceil
from pathlib import Path
from typing import TypeVar

import torch

from engine.processes.program import to_path
from pwlu_ext.benchmarks.calls import DTYPES, FORMATS, Calls, Case, folded_calls, operator_calls
from pwlu_ext.benchmarks.measure import (
    Call,
    environment,
    interleaved_times,
    kernel_clock_of,
    percentiles_ms,
    write_record,
)
from pwlu_ext.benchmarks.page import Row, operator_page

Key = TypeVar("Key")
# Number of functions: height and width of their images, as in ResNet-50 at 224 px.
SIZES = {64: 56, 256: 28, 2048: 7}
MIDDLE = 256  # functions, where not every number is measured
INTERVALS = (4, 8, 16, 32, 64)


class Arguments(argparse.Namespace):
    """The command line."""

    device: str
    mebibytes: float
    rounds: int
    warm_up: int
    output: Path | None


def shape_of(case: Case, channels: int, mebibytes: float) -> tuple[int, int, int, int]:
    """Return the smallest batch of images with which a tensor has at least that many mebibytes."""
    size = SIZES[channels]
    image_bytes = channels * size * size * DTYPES[case.dtype].itemsize
    return ceil(mebibytes * 2**20 / image_bytes), channels, size, size


def medians_ms(calls: Mapping[Key, Call], arguments: Arguments) -> dict[Key, float]:
    """Return the median of each call's times over interleaved rounds, in milliseconds."""
    clock = kernel_clock_of(torch.device(arguments.device))
    times = interleaved_times(calls, rounds=arguments.rounds, warm_up=arguments.warm_up, clock=clock)
    return {name: round(percentiles_ms(seconds)[1], 5) for name, seconds in times.items()}


def measure_case(case: Case, channels: int, arguments: Arguments) -> Row:
    """Return a row with the times of all calls."""
    shape = shape_of(case, channels, arguments.mebibytes)
    compiled = channels == MIDDLE and arguments.device == "cuda"
    calls = operator_calls(case, shape, arguments.device)
    calls |= folded_calls(case, shape, arguments.device, compiled)
    return case.describe(shape) | {"milliseconds": medians_ms(calls, arguments)}


def measure_intervals(dtype: str, memory_format: str, arguments: Arguments) -> list[Row]:
    """Return rows of PWLU with different numbers of intervals, interleaved."""
    cases = [Case(dtype, memory_format, num_intervals=count) for count in INTERVALS]
    shape = shape_of(cases[0], MIDDLE, arguments.mebibytes)
    names = ("pwlu", "pwlu backward")
    groups: list[Calls] = [operator_calls(case, shape, arguments.device) for case in cases]
    times = medians_ms(
        {(i, name): group[name] for i, group in enumerate(groups) for name in names}, arguments
    )
    return [
        case.describe(shape) | {"milliseconds": {name: times[i, name] for name in names}}
        for i, case in enumerate(cases)
    ]


def parse() -> Arguments:
    """Return the command line; a dry run takes small tensors and few rounds unless told otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    parser.add_argument("--mebibytes", type=float, help="of a tensor, at least (256; cpu: 0.05)")
    parser.add_argument("--rounds", type=int, help="that count (100; cpu: 3)")
    parser.add_argument("--warm-up", type=int, help="rounds before them (10; cpu: 1)")
    parser.add_argument("--output", type=to_path, help="record to write, .json; its page lies beside it")
    arguments = parser.parse_args(namespace=Arguments())
    defaults = (256.0, 100, 10) if arguments.device == "cuda" else (0.05, 3, 1)
    for name, default in zip(("mebibytes", "rounds", "warm_up"), defaults, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.mebibytes <= 0 or arguments.rounds < 1 or arguments.warm_up < 0:
        parser.error("expected --mebibytes above 0, --rounds of at least 1 and --warm-up of at least 0")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no usable GPU; --device cpu makes a dry run")
    return arguments


def main() -> None:
    """Measure, print and record what the command line asks for."""
    arguments = parse()
    layouts = list(product(DTYPES, FORMATS))
    cases, intervals = [], []
    for dtype, layout in layouts:
        for channels in SIZES:
            print(f"{dtype}, {layout}, {channels} functions", flush=True)
            cases.append(measure_case(Case(dtype, layout), channels, arguments))
        print(f"{dtype}, {layout}, {INTERVALS[0]} to {INTERVALS[-1]} intervals", flush=True)
        intervals += measure_intervals(dtype, layout, arguments)
    record = {
        "benchmark": "operator_gpu",
        "arguments": {
            name: getattr(arguments, name) for name in ("device", "mebibytes", "rounds", "warm_up")
        },
        "environment": environment(torch.device(arguments.device)),
        "sections": {"cases": cases, "intervals": intervals},
    }
    write_record(arguments.output, record, operator_page(record))


if __name__ == "__main__":
    main()
