import json
from pathlib import Path

import pytest

from tools import loop_overhead


def test_a_record_says_what_a_step_takes_in_both_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "loop.json"
    words = ["--steps", "6", "--log-every-steps", "3", "--batch-size", "2"]
    monkeypatch.setattr("sys.argv", ["loop_overhead", "--output", str(output), *words])
    loop_overhead.main()
    record = json.loads(output.read_text())
    assert record["arguments"]["steps"] == 6 and record["environment"]["commit"]
    assert record["ratio"] > 0 and all(time > 0 for time in record["milliseconds"].values())
    page = output.with_suffix(".md").read_text()
    assert f"**{record['ratio']:.3f}** times" in page and page in capsys.readouterr().out
