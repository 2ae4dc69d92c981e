"""Short tables, from records with known numbers."""

import json
from pathlib import Path

from tests.tools.latency_records import latency_record
from tools.tables.short import training_step_table


def test_costs_of_training_are_ratios_to_relu(tmp_path: Path) -> None:
    record = latency_record(("training_step",))
    kept = {"relu": 50.0, "swish": 70.0, "pwlu": 75.0}
    record["training_step"] = [
        row | {"kept_mib": kept[row["activation"]] * (2 if row["model"] == "resnet18" else 1)}
        for row in record["training_step"]
        if row["activation"] in kept
    ]
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / "training_step_cpu.json").write_text(json.dumps(record))
    lines = training_step_table(tmp_path)
    assert "| swish | 1.10 | 1.40 | 1.10 | 1.40 |" in lines
    assert "| pwlu | 1.20 | 1.50 | 1.20 | 1.50 |" in lines
