"""The README's examples run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("timm", reason="the README's example takes its network from timm")


def test_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    training, inference, trained, fused = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(training, "README.md", "exec"), names)
    assert names["phases"].phase == 2
    assert "replaced 17 of 17 sites" in capsys.readouterr().out
    exec(compile(inference, "README.md", "exec"), names)
    assert "9 of 17 PWLUs absorbed the BatchNorm" in capsys.readouterr().out
    image = torch.randn(3, 3, 64, 64)
    actual, expected = names["program"].module()(image), names["model"].eval()(image)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
    exec(compile(trained, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "hardswish" in printed and "calibrated 23 of 23 sites on 4 batches" in printed
    exec(compile(fused, "README.md", "exec"), names)
    assert "23 of 23 PWLUs fused with the BatchNorm before them" in capsys.readouterr().out
