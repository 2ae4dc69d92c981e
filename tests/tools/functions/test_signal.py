"""What the PWLUs of a run get, and how their gradients compare with noise."""

import json
from pathlib import Path

import pytest
import torch

from pwlu import PWLU
from tools.functions import signal as learning_signal
from tools.functions.signal import PARTS, gradient_statistics, input_statistics
from tools.functions.signal_table import signal_table
from tools.functions.statistics import Histogram, Moments


def test_signal_and_noise_of_gradients_made_of_both() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(500, generator=generator) * 0.3
    samples = [truth + 2 * torch.randn(500, generator=generator) for _ in range(400)]
    found = gradient_statistics(samples)
    assert found["noise"] == pytest.approx(2, rel=0.01)
    assert found["signal"] == pytest.approx(truth.square().mean().sqrt().item(), rel=0.1)


def test_noise_alone_leaves_no_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    found = gradient_statistics([torch.randn(2000, generator=generator) for _ in range(10)])
    assert found["signal"] < 0.1 * found["noise"]
    assert gradient_statistics([torch.ones(3)] * 4) == {"signal": 1.0, "noise": 0.0}


def statistics_of(layer: PWLU, *batches: torch.Tensor) -> tuple[list[list[int]], dict[str, float | None]]:
    """Counts by interval, and what is said of them."""
    intervals, moments = Histogram.between(layer.left, layer.right, layer.num_intervals), Moments()
    for batch in batches:
        intervals.add(batch)
        moments.add(batch, batch)
    return intervals.counts.tolist(), input_statistics(layer, intervals, moments)


def test_inputs_by_interval_by_hand() -> None:
    x = torch.tensor([[-3.0, -2.0, -0.5, 2.0, 9.0], [0.5, 0.6, 1.5, 1.6, 1.9]])
    counts, found = statistics_of(PWLU(2, num_intervals=4, bound=2.0), x[:, :4], x[:, 4:])
    assert counts == [[1, 1, 1, 0, 0, 2], [0, 0, 0, 2, 3, 0]]
    assert found["dead_intervals"] == 4 / 8 and found["outside"] == pytest.approx(3 / 10)
    widths = 4 / (6 * x.double().std(1, correction=0))
    assert found["width"] == pytest.approx(widths.min().item())  # torch's median of two is the lower


def test_boundaries_that_have_crossed_have_no_intervals() -> None:
    layer = PWLU(1, num_intervals=4)
    with torch.no_grad():
        layer.left.fill_(1.0)
        layer.right.fill_(-1.0)
    counts, found = statistics_of(layer, torch.tensor([[-2.0, 0.0, 2.0]]))
    assert counts == [[2, 0, 0, 0, 0, 1]] and found["dead_intervals"] == 1


def test_record_and_table_of_a_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "checkpoints" / "last.pt").read_bytes()
    output = tmp_path / "signal.json"
    learning_signal.main([str(trained), "--output", str(output), "--steps", "3"])
    record = json.loads(output.read_text())
    assert (record["label"], record["steps"]) == ("tiny", 3)
    assert output.with_suffix(".png").stat().st_size > 10_000
    assert record["layers"] and record["layers_without_input"] == []
    for layer in record["layers"].values():
        assert layer["width"] > 0 and 0 <= layer["dead_intervals"] < 1 and 0 <= layer["outside"] < 0.5
        assert all(layer[part]["noise"] > 0 for part in ("points", "boundaries"))
    lines = signal_table(record)
    assert len(lines) == 2 + len(record["layers"]) and "\n".join(lines) in capsys.readouterr().out
    assert (trained / "checkpoints" / "last.pt").read_bytes() == before


def test_of_a_detector(trained_detector: Path, tmp_path: Path) -> None:
    output = tmp_path / "signal.json"
    learning_signal.main([str(trained_detector), "--output", str(output), "--steps", "2"])
    record = json.loads(output.read_text())
    assert any("backbone" in name for name in record["layers"])


@pytest.mark.parametrize("steps", ["1", "-1", "4"])
def test_too_few_or_too_many_steps_are_explained(
    trained: Path, tmp_path: Path, steps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        learning_signal.main([str(trained), "--output", str(tmp_path / "a.json"), f"--steps={steps}"])
    sentence = f"--steps is {steps}, expected 2 (to tell noise from signal) to 3 (an epoch of this run)"
    assert sentence in capsys.readouterr().err and not (tmp_path / "a.json").exists()


def test_inputs_that_do_not_vary_have_no_width() -> None:
    _, found = statistics_of(PWLU(1, num_intervals=4), torch.full((1, 9), 0.1))
    assert found["width"] is None
    row = {"functions": 1, **found} | {part: {"signal": 0.0, "noise": 1.0} for part in PARTS}
    line = signal_table({"layers": {"act": row}})[-1]
    assert line.startswith("| act | 1 | — | 75.0 | 0.0 | 0.0e+00 / 1.0e+00 |")
