"""Short tables in Markdown for README.md and docs/, each of one record in results/."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.runs.manifest import short_commit
from pwlu_ext.benchmarks.page import table as markdown_table
from tools.latency.table import machine, paper_time, read_latency, table_4
from tools.paper.numbers import PAPER
from tools.records import read_json
from tools.tables.measurements import SHOWN, mean_and_spread


def demo_table(results: Path) -> list[str]:
    """Return what `make demo` gave."""
    return comparison_table(read_json(results / "demo" / "digits_r18_pwlu.json", "make demo")["runs"])


def demo_coco_table(results: Path) -> list[str]:
    """Return what `make demo-coco` gave."""
    return comparison_table(
        read_json(results / "demo" / "digits_mask_rcnn_pwlu.json", "make demo-coco")["runs"]
    )


def comparison_table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of the runs' metrics by activation, and a line on where they come from."""
    by_activation: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_activation.setdefault(run["settings"]["activation.name"], []).append(run)
    shown = [name for name in SHOWN if name in runs[0]]
    rows = [
        [name, str(len(group)), *(mean_and_spread([run[metric] for run in group]) for metric in shown)]
        for name, group in sorted(by_activation.items())
    ]
    return [*markdown_table(["activation", "n", *map(SHOWN.__getitem__, shown)], rows), "", _origin(runs)]


def _origin(runs: Sequence[dict[str, Any]]) -> str:
    settings, data, hardware = runs[0]["settings"], runs[0]["data"], runs[0]["hardware"]
    length = f"{settings['epochs']} epochs" if "epochs" in settings else f"{settings['steps']} steps"
    commits = ", ".join(sorted({short_commit(run["code"]) for run in runs}))
    machine = hardware.get("gpu", hardware["cpu"])
    return (
        f"{data['num_train']} training and {data['num_val']} validation images, {length}; commit {commits}, "
        f"{machine}, torch {runs[0]['packages']['torch']}."
    )


def operator_cpu_table(results: Path) -> list[str]:
    """Return the operator's times on a CPU, float32 and channel-wise, over those of a copy and of SiLU."""
    path = results / "benchmarks" / "operator_cpu.json"
    record = read_json(path, "python -m pwlu_ext.benchmarks.operator_cpu")
    rows = []
    for case in record["sections"]["cases"]:
        if case["dtype"] == "float32" and case["functions"] == "channel-wise":
            shape, times = " x ".join(map(str, case["shape"])), case["milliseconds"]
            pairs = [("pwlu", "copy"), ("pwlu", "silu"), ("pwlu backward", "silu backward")]
            ratios = [f"{times[call] / times[other]:.2f}" for call, other in pairs]
            rows.append([f"{shape}, {case['memory_format']}", *ratios])
    heads = ["tensor", "forward / copy", "forward / SiLU", "backward / SiLU's backward"]
    return [*markdown_table(heads, rows), "", _machine(record["environment"])]


def training_step_table(results: Path) -> list[str]:
    """Return what a training step on a CPU takes, and keeps for its backward pass, over ReLU's."""
    record = read_latency(results / "latency" / "training_step_cpu.json")
    eager = [row for row in record["training_step"] if row["runtime"] == "eager"]
    rows = {(row["model"], row["activation"]): row for row in eager}
    models, activations = (list(dict.fromkeys(names)) for names in zip(*rows, strict=True))
    body = []
    for name in activations:
        cells = []
        for model in models:
            row, relu = rows[model, name], rows[model, "relu"]
            cells += [f"{row['ratio_to_relu']:.2f}", f"{row['kept_mib'] / relu['kept_mib']:.2f}"]
        body.append([name, *cells])
    heads = ["/ ReLU's", *(head for model in models for head in (f"{model}: time", "memory"))]
    arguments, environment = record["arguments"], record["environment"]
    origin = (
        f"{arguments['training_batch_size']} images of {arguments['image_size']} px, float32; medians on "
        f"{machine(environment['hardware'])}, torch {environment['packages']['torch']}, "
        f"commit {short_commit(environment['code'])}."
    )
    return [*markdown_table(heads, body), "", origin]


def latency_ratios(path: Path) -> list[str]:
    """Return the times of inference in a record of tools.latency over those with ReLU, beside the paper's."""
    record, paper = read_latency(path), table_4(PAPER)
    found = record["inference"]
    runtimes = list(dict.fromkeys(row["runtime"] for row in found))
    ratios = {
        (row["model"], row["activation"], row["runtime"]): f"{row['ratio_to_relu']:.2f}" for row in found
    }
    rows = []
    for model, activation in dict.fromkeys((row["model"], row["activation"]) for row in found):
        ours = [ratios.get((model, activation, runtime), "") for runtime in runtimes]
        time, relu = paper_time(paper, model, activation), paper_time(paper, model, "relu")
        published = f"{time / relu:.2f}" if time and relu else ""
        rows.append([f"{model}, {activation}", *ours, published])
    return markdown_table(["time / time with ReLU", *runtimes, "paper, V100"], rows)


def _machine(environment: dict[str, Any]) -> str:
    return (
        f"{environment['threads']} threads of {environment['processor']}, torch {environment['torch']}, "
        f"commit {environment['commit'][:10]}."
    )
