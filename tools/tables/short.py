"""Short tables in Markdown for README.md and docs/, each of one record in results/."""

import json
from pathlib import Path
from typing import Any

from pwlu_ext.benchmarks.page import table
from tools.latency.figure import read_latency
from tools.latency.table import paper_time, table_4
from tools.paper.numbers import PAPER
from tools.tables.compare import comparison_table


def demo_table(results: Path) -> list[str]:
    """Return what `make demo` gave."""
    return comparison_table(_read(results / "demo" / "digits_r18_pwlu.json", "make demo")["runs"])


def demo_coco_table(results: Path) -> list[str]:
    """Return what `make demo-coco` gave."""
    return comparison_table(_read(results / "demo" / "digits_mask_rcnn_pwlu.json", "make demo-coco")["runs"])


def operator_cpu_table(results: Path) -> list[str]:
    """Return the operator's times on a CPU, float32 and channel-wise, over those of a copy and of SiLU."""
    path = results / "benchmarks" / "operator_cpu.json"
    record = _read(path, "python -m pwlu_ext.benchmarks.operator_cpu")
    lines = [
        "| tensor | forward / copy | forward / SiLU | backward / SiLU's backward |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case in record["sections"]["cases"]:
        if case["dtype"] == "float32" and case["functions"] == "channel-wise":
            shape, times = " x ".join(map(str, case["shape"])), case["milliseconds"]
            ratios = [
                times["pwlu"] / times["copy"],
                times["pwlu"] / times["silu"],
                times["pwlu backward"] / times["silu backward"],
            ]
            lines.append(f"| {shape}, {case['memory_format']} | {' | '.join(f'{x:.2f}' for x in ratios)} |")
    return [*lines, "", _origin(record["environment"])]


def training_step_table(results: Path) -> list[str]:
    """Return the times of a training step of ResNet-18 on a CPU, also over that with ReLU."""
    path = results / "benchmarks" / "training_step.json"
    record = _read(path, "python -m tools.latency --training-step only --models resnet18")
    steps = [
        [row["activation"], f"{row['milliseconds']:.0f}", f"{row['over_relu']:.2f}"]
        for row in record["sections"]["steps"]
    ]
    return [*table(["activation", "step (ms)", "/ ReLU's"], steps), "", _origin(record["environment"])]


def latency_cpu_table(results: Path) -> list[str]:
    """Return the times of whole networks on a CPU over those with ReLU, beside the paper's (Table 4)."""
    return latency_ratios(results / "latency" / "cpu.json")


def latency_ratios(path: Path) -> list[str]:
    """Return the times of inference in a record of tools.latency over those with ReLU, beside the paper's."""
    record, paper = read_latency(path), table_4(PAPER)
    rows = record["inference"]
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    ratios = {(row["model"], row["activation"], row["mode"]): row["ratio_to_relu"] for row in rows}
    lines = [
        f"| time / ReLU's | activation | {' | '.join(modes)} | paper, V100 |",
        f"| --- | --- |{' ---: |' * (len(modes) + 1)}",
    ]
    for model, activation in dict.fromkeys((row["model"], row["activation"]) for row in rows):
        ours = [f"{ratios[model, activation, mode]:.2f}" for mode in modes]
        time, relu = paper_time(paper, model, activation), paper_time(paper, model, "relu")
        published = f"{time / relu:.2f}" if time and relu else ""
        lines.append(f"| {model} | {activation} | {' | '.join([*ours, published])} |")
    return lines


def _origin(environment: dict[str, Any]) -> str:
    return (
        f"{environment['threads']} threads of {environment['processor']}, torch {environment['torch']}, "
        f"commit {environment['commit'][:10]}."
    )


def _read(path: Path, command: str) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is missing; make it by `{command}`")
    return json.loads(path.read_text(encoding="utf-8"))
