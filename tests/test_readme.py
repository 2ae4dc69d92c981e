"""The README's numbers are those of the records."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def record(name: str) -> Any:
    return json.loads((ROOT / "results" / "benchmarks" / f"{name}.json").read_text())


def test_accuracies_stand_in_the_records() -> None:
    rows = [line for line in README.splitlines() if line.startswith(("| pwlu |", "| relu |"))]
    generated = "\n".join(path.read_text() for path in (ROOT / "results").rglob("*.md"))
    assert len(rows) == 3
    assert all(row in generated for row in rows)


def test_operator_speed_stands_in_the_record() -> None:
    for row in record("operator_cpu")["rows"]:
        shape = " x ".join(map(str, row["shape"]))
        forward, backward = row["forward_over_silu"], row["backward_over_silu_backward"]
        assert f"| {shape}, {row['memory_format']} | {forward:.2f} | {backward:.2f} |" in README


def test_training_step_stands_in_the_record() -> None:
    over_relu = {row["activation"]: row["over_relu"] for row in record("training_step")["rows"]}
    assert f"{over_relu['pwlu']:.2f} times the step with ReLU" in README
    assert f"{over_relu['silu']:.2f} times with SiLU" in README
