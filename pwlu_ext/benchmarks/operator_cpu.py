"""Measure the operator on a CPU beside other activation functions: a record and a page of tables.

python -m pwlu_ext.benchmarks.operator_cpu --threads 2 --output results/benchmarks/operator_cpu.json
"""

import argparse
import time
from collections.abc import Iterable

import torch

from engine.processes.program import to_path
from pwlu_ext.benchmarks.calls import (
    Calls,
    Case,
    autograd_calls,
    batch_norm_calls,
    operator_calls,
    slow_calls,
)
from pwlu_ext.benchmarks.measure import Call, environment, interleaved_times, write_record
from pwlu_ext.benchmarks.page import Row, operator_page

LARGE, SMALL, TINY = (32, 64, 56, 56), (8, 256, 28, 28), (1, 64, 7, 7)
CASES = (
    Case(),
    Case(functions="layer-wise"),
    Case(memory_format="channels_last"),
    Case(dtype="bfloat16"),
    Case(dtype="bfloat16", memory_format="channels_last"),
)
INTERVALS = (4, 8, 12, 16, 24, 32)


def measure_together(groups: Iterable[tuple[Row, Calls]], rounds: int, repeats: int = 1) -> list[Row]:
    """Return each group's description with the milliseconds of its calls, all groups interleaved.

    A time is the shortest of `rounds`, each the mean of `repeats` calls.
    """

    def clock(call: Call) -> float:
        call()  # brings its tensors into the caches, as far as they fit
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    groups = list(groups)
    calls = {(i, name): call for i, (_, group) in enumerate(groups) for name, call in group.items()}
    times = interleaved_times(calls, rounds=rounds, warm_up=0, clock=clock)
    return [
        description | {"milliseconds": {name: round(1e3 * min(times[i, name]), 5) for name in group}}
        for i, (description, group) in enumerate(groups)
    ]


def measure_cases(shape: tuple[int, ...], rounds: int) -> list[Row]:
    """Return a row per case of one shape; the first has the slow calls too."""
    rows = measure_together(((case.describe(shape), operator_calls(case, shape)) for case in CASES), rounds)
    slow = [(CASES[0].describe(shape), slow_calls(CASES[0], shape))]
    rows[0]["milliseconds"] |= measure_together(slow, max(3, rounds // 10))[0]["milliseconds"]
    return rows


def measure_intervals(shape: tuple[int, ...], rounds: int) -> list[Row]:
    """Return rows of PWLU with different numbers of intervals."""
    groups = []
    for layout in ("contiguous", "channels_last"):
        for count in INTERVALS:
            case = Case(memory_format=layout, num_intervals=count)
            calls = operator_calls(case, shape)
            pwlu_alone = {name: calls[name] for name in ("pwlu", "pwlu backward")}
            groups.append((case.describe(shape), pwlu_alone))
    return measure_together(groups, rounds)


def main() -> None:
    """Measure, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--output", type=to_path, help="record to write, .json; its page lies beside it")
    arguments = parser.parse_args()
    threads, rounds = arguments.threads, arguments.rounds
    torch.set_num_threads(threads)
    sections = {
        "cases": measure_cases(LARGE, rounds) + measure_cases(SMALL, rounds),
        "single_call": measure_together([(Case().describe(TINY), autograd_calls(TINY))], rounds, repeats=20),
        "intervals": measure_intervals(SMALL, rounds),
        "batch_norm": measure_together(
            (
                (case.describe(shape), batch_norm_calls(case, shape))
                for shape in (LARGE, SMALL)
                for case in CASES
            ),
            rounds,
        ),
    }
    record = {
        "benchmark": "operator_cpu",
        "arguments": {"threads": threads, "rounds": rounds},
        "environment": environment(torch.device("cpu")),
        "sections": sections,
    }
    write_record(arguments.output, record, operator_page(record))


if __name__ == "__main__":
    main()
