import csv
from pathlib import Path
from typing import Any

import pytest

from tools.latency.table import PAPER_NOTE, latency_table, paper_time, table_4


def write_paper(path: Path) -> Path:
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["table", "row", "column", "metric", "value", "unit"])
        lines.writerow([2, "Test-ResNet", "ReLU", "top1", 71.0, "%"])
        lines.writerow([4, "Test-ResNet", "ReLU", "inference_time", 10.0, "ms"])
        lines.writerow([4, "Test-ResNet", "F-ReLU", "inference_time", 12.5, "ms"])
        lines.writerow([4, "MobileNet-V3", "ReLU", "inference_time", 20.0, "ms"])
    return path


def record_by_hand() -> dict[str, Any]:
    times = {"relu": (10.0, 1.0), "frelu": (15.0, 1.5), "pwlu": (11.04, 1.104)}
    rows = [
        {"model": "test_resnet", "activation": name, "mode": "eager", "p50_ms": time, "p10_ms": time - 1,
         "p90_ms": time + 1, "ratio_to_relu": ratio}
        for name, (time, ratio) in times.items()
    ]  # fmt: skip
    arguments = {"image_size": 32, "batch_size": 2, "dtype": "float32", "channels_last": True}
    environment = {
        "hardware": {"device": "cuda", "gpu": "NVIDIA Something", "cpu": "a processor"},
        "code": {"commit": "0123456789abcdef", "uncommitted_changes": True},
        "time_utc": "2026-01-02T03:04:05+00:00",
        "packages": {"torch": "2.14.1"},
        "command": ["latency.py", "--output", "x.json"],
    }
    return {
        "arguments": {**arguments, "iterations": 500, "warm_up": 50},
        "environment": environment,
        "left_out": [],
        "inference": rows,
        "training_step": [],
    }


def test_table_by_hand(tmp_path: Path) -> None:
    text = latency_table(record_by_hand(), table_4(write_paper(tmp_path / "paper.csv")))
    assert "# Latency on NVIDIA Something\n" in text
    assert "Input 2 x 3 x 32 x 32, float32, channels_last, eval mode." in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table == [
        "| activation | eager (ms) | / ReLU | paper, V100 (ms) | / ReLU |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| relu | 10.00 (9.00 to 11.00) | 1.00 | 10.0 | 1.00 |",
        "| frelu | 15.00 (14.00 to 16.00) | 1.50 | 12.5 | 1.25 |",
        "| pwlu | 11.04 (10.04 to 12.04) | 1.10 |  |  |",
    ]
    assert PAPER_NOTE in text
    assert (
        "Commit 0123456789+changes, 2026-01-02, torch 2.14.1. `python -m tools.latency --output x.json`"
        in text
    )


def test_table_without_the_paper() -> None:
    text = latency_table(record_by_hand(), {})
    assert "paper" not in text and "| pwlu | 11.04 (10.04 to 12.04) | 1.10 |\n" in text


def test_paper_without_a_column(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_text("table,row,column,metric,number,unit\n4,ResNet-18,ReLU,inference_time,1,ms\n")
    with pytest.raises(ValueError, match="paper.csv: expected the columns table, row"):
        table_4(path)


def test_paper_names_of_the_models(tmp_path: Path) -> None:
    paper = table_4(write_paper(tmp_path / "paper.csv"))
    assert paper_time(paper, "mobilenetv3_small_100", "relu") == 20.0
    assert paper_time(paper, "mobilenetv3_large_100", "relu") is None
    assert paper_time(paper, "test_resnet", "pwlu") is None
