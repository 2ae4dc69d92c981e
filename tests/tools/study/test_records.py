"""The sections of STUDY.md that come from records of tools."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.functions import boundary_iou
from tools.functions import shapes as learned_shapes
from tools.functions import signal as learning_signal
from tools.functions.signal_table import signal_table
from tools.study.records import record_lines


@pytest.fixture(scope="module")
def results(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three records of a small run, and what somebody wrote about one."""
    folder = tmp_path_factory.mktemp("results")
    for kind, tool in (("iou", boundary_iou), ("shapes", learned_shapes), ("signal", learning_signal)):
        words = ["--steps", "2"] if kind == "signal" else []
        tool.main([str(trained), "--output", str(folder / "figures" / f"small_study_{kind}.json"), *words])
    (folder / "study").mkdir()
    (folder / "study" / "shapes.md").write_text("Nothing to see yet.\n")
    return folder


def record(results: Path, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "figures" / f"small_study_{kind}.json").read_text())
    return found


def test_every_record_becomes_a_section_with_its_numbers(results: Path) -> None:
    text = "\n".join(record_lines(results))
    summary = record(results, "iou")["checkpoints"][0]["summary"]
    assert f"| tiny | {summary['functions']} | {summary['quartile2']:.3f} | " in text
    for name, layer in record(results, "shapes")["checkpoints"][0]["layers"].items():
        one = layer["summary"]
        assert f"| tiny, {name} | {one['functions']} | {one['v_shaped']} | " in text
    assert "\n".join(signal_table(record(results, "signal"))) in text
    assert text.count("\n## ") == 2 and text.startswith("## ") and "Nothing to see yet." in text
    assert "](figures/small_study_iou.png)" in text and "](figures/small_study_shapes.png)" in text


def test_without_records_there_are_no_sections(tmp_path: Path) -> None:
    assert record_lines(tmp_path) == []


@pytest.mark.parametrize("content", ["{", "{}", '{"checkpoints": [{}]}'])
def test_what_is_no_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "small_study_iou.json").write_text(content)
    with pytest.raises(ValueError, match=r"small_study_iou\.json: not the record that its name says"):
        record_lines(tmp_path)
