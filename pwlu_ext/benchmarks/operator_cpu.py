"""The operator on a CPU against its rivals, as a record and the table made of it.

    python pwlu_ext/benchmarks/operator_cpu.py --threads 2 --output results/benchmarks/operator_cpu.json

Times are the best of many rounds in which every call of a section runs once. README.md beside this file says
what limits them.
"""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measure import best_times, write_record
from rivals import Calls, Case, operator_calls, single_calls, slow_calls
from table import operator_table

LARGE, SMALL, TINY = (32, 64, 56, 56), (8, 256, 28, 28), (1, 64, 7, 7)
CASES = (
    Case(),
    Case(functions="layer-wise"),
    Case(memory_format="channels_last"),
    Case(dtype="bfloat16"),
    Case(dtype="bfloat16", memory_format="channels_last"),
)
INTERVALS = (4, 8, 12, 16, 24, 32)
CHANNELS = (1, 4, 16, 64, 256, 1024)


def measure_together(
    groups: Iterable[tuple[dict[str, Any], Calls]], rounds: int, repeats: int = 1
) -> list[dict[str, Any]]:
    """One row per group: its description and the milliseconds of its calls, all groups interleaved."""
    groups = list(groups)
    calls = {(i, name): call for i, (_, group) in enumerate(groups) for name, call in group.items()}
    times = best_times(calls, rounds, repeats)
    return [
        description | {"milliseconds": {name: round(1e3 * times[i, name], 5) for name in group}}
        for i, (description, group) in enumerate(groups)
    ]


def described(shape: tuple[int, ...], case: Case, **more: Any) -> dict[str, Any]:
    """What a row is about."""
    return {"shape": list(shape), **asdict(case), "threads": torch.get_num_threads(), **more}


def measure_cases(shape: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Every case at one shape; the first also against the slow rivals."""
    rows = measure_together(((described(shape, c), operator_calls(c, shape)) for c in CASES), rounds)
    slow = [(described(shape, CASES[0]), slow_calls(CASES[0], shape))]
    rows[0]["milliseconds"] |= measure_together(slow, max(3, rounds // 10))[0]["milliseconds"]
    return rows


def only_pwlu(case: Case, shape: tuple[int, ...]) -> Calls:
    """The two calls of PWLU."""
    return {name: call for name, call in operator_calls(case, shape).items() if name.startswith("pwlu")}


def measure_intervals(shape: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """PWLU with different numbers of intervals."""
    cases = [
        Case(memory_format=layout, num_intervals=intervals)
        for layout in ("contiguous", "channels_last")
        for intervals in INTERVALS
    ]
    return measure_together(((described(shape, c), only_pwlu(c, shape)) for c in cases), rounds)


def measure_channels(most: int, rounds: int) -> list[dict[str, Any]]:
    """PWLU with different numbers of functions on as many elements as SMALL has, on one thread and on all."""
    batch, channels, height, width = SMALL
    shapes = [(batch, count, channels * height * width // count, 1) for count in CHANNELS]
    rows = []
    for threads in sorted({1, most}):
        torch.set_num_threads(threads)
        groups = ((described(shape, Case()), only_pwlu(Case(), shape)) for shape in shapes)
        rows += measure_together(groups, rounds)
    return rows


def measure_threads(shape: tuple[int, ...], most: int, rounds: int) -> list[dict[str, Any]]:
    """PWLU and its rivals on 1, 2, 4 ... threads."""
    rows = []
    for threads in sorted({*(2**i for i in range(most.bit_length())), most}):
        torch.set_num_threads(threads)
        rows += measure_together([(described(shape, Case()), operator_calls(Case(), shape))], rounds)
    return rows


def main() -> None:
    """Measure, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--output", type=Path, help="JSON record to write; its table is written beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = arguments.rounds
    sections = {
        "cases": measure_cases(LARGE, rounds) + measure_cases(SMALL, rounds),
        "single_call": measure_together([(described(TINY, Case()), single_calls(TINY))], rounds, repeats=20),
        "intervals": measure_intervals(SMALL, rounds),
        "channels": measure_channels(arguments.threads, rounds),
        "threads": measure_threads(LARGE, arguments.threads, rounds),
    }
    settings = {"threads": arguments.threads, "rounds": rounds}
    record = write_record(arguments.output, "operator_cpu", settings, sections)
    table = operator_table(record)
    print(table)
    if arguments.output is not None:
        arguments.output.with_suffix(".md").write_text(table)


if __name__ == "__main__":
    main()
