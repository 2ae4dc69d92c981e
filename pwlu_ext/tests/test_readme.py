"""The README's training loop runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="the README's example takes its network from timm")


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["phases"].phase == 2
    assert "replaced 17 of 17 sites" in capsys.readouterr().out
