"""The README's numbers are those of the records."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def record(name: str) -> Any:
    return json.loads((ROOT / "results" / "benchmarks" / f"{name}.json").read_text())


def test_accuracies_stand_in_the_records() -> None:
    rows = [line for line in README.splitlines() if line.startswith(("| pwlu |", "| relu |"))]
    generated = "\n".join(path.read_text() for path in (ROOT / "results").rglob("*.md"))
    assert len(rows) == 8
    assert all(row in generated for row in rows)


def test_operator_speed_stands_in_the_record() -> None:
    sections = record("operator_cpu")["sections"]
    rows = [r for r in sections["cases"] if r["dtype"] == "float32" and r["functions"] == "channel-wise"]
    assert len(rows) == 4
    for row in rows:
        shape, times = " x ".join(map(str, row["shape"])), row["milliseconds"]
        rivals = [("pwlu", "copy"), ("pwlu", "silu"), ("pwlu backward", "silu backward")]
        ratios = [f"{times[call] / times[rival]:.2f}" for call, rival in rivals]
        assert f"| {shape}, {row['memory_format']} | {' | '.join(ratios)} |" in README


def test_cost_of_a_call_stands_in_the_record() -> None:
    times = record("operator_cpu")["sections"]["single_call"][0]["milliseconds"]
    both = times["pwlu forward + backward"] / times["prelu forward + backward"]
    assert f"takes {times['pwlu'] / times['prelu']:.1f} times `F.prelu`'s time" in README
    assert f"forward and backward\n{both:.1f} times" in README


def test_operator_table_is_that_of_its_record() -> None:
    sys.path.insert(0, str(ROOT / "pwlu_ext" / "benchmarks"))
    try:
        table = importlib.import_module("table").operator_table(record("operator_cpu"))
    finally:
        sys.path.pop(0)
    assert (ROOT / "results" / "benchmarks" / "operator_cpu.md").read_text() == table


def test_training_step_stands_in_the_record() -> None:
    steps = record("training_step")["sections"]["steps"]
    over_relu = {row["activation"]: row["over_relu"] for row in steps}
    assert f"{over_relu['pwlu']:.2f} times the step with ReLU" in README
    assert f"{over_relu['silu']:.2f} times with SiLU" in README
