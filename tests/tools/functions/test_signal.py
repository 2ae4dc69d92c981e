"""How far the PWLUs of a run moved, what they get, and how their gradients compare with noise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.training.checkpoint import read_checkpoint
from pwlu import PWLU
from tools.functions import signal as learning_signal
from tools.functions.inputs import rows_of
from tools.functions.signal import LayerInputs, gradient_statistics, jaggedness
from tools.functions.signal_table import signal_table


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


def summary_of(layer: PWLU, *batches: torch.Tensor) -> dict[str, float | None]:
    inputs = LayerInputs(layer)
    for batch in batches:
        inputs.add(batch)
    return inputs.summary()


def test_inputs_by_interval_by_hand() -> None:
    x = torch.tensor([[-3.0, -2.0, -0.5, 2.0, 9.0], [0.5, 0.6, 1.5, 1.6, 1.9]])
    found = summary_of(PWLU(2, num_intervals=4, bound=2.0), x[:, :4], x[:, 4:])
    assert found["dead_intervals"] == 4 / 8 and found["outside"] == pytest.approx(3 / 10)
    widths = 4 / (6 * x.double().std(1, correction=0))
    assert found["width"] == pytest.approx(widths.min().item())  # torch's median of two is the lower


def test_boundaries_that_have_crossed_have_no_intervals() -> None:
    layer = PWLU(1, num_intervals=4)
    with torch.no_grad():
        layer.left.fill_(1.0)
        layer.right.fill_(-1.0)
    found = summary_of(layer, torch.tensor([[-2.0, 0.0, 2.0]]))
    assert found["dead_intervals"] == 1


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
        assert layer["noise"] > 0 and 0 < layer["moved_median"] <= layer["moved_largest"] < 1
        assert 0 < layer["jagged"] <= 4
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


def test_inputs_that_do_not_vary_have_no_spread() -> None:
    layer = PWLU(1, num_intervals=4)
    found = summary_of(layer, torch.full((1, 9), 0.1))
    assert found["width"] is None and found["moved_median"] is None and found["moved_largest"] is None
    row = {"functions": 1, **found, "jagged": jaggedness(layer), "signal": 0.0, "noise": 1.0}
    line = signal_table({"layers": {"act": row}})[-1]
    assert line == "| act | 1 | — | — | — | 0.0e+00 / 1.0e+00 | — | 75.0 | 0.0 |"


def test_moved_of_a_network_by_hand() -> None:
    """Per function: a shift of all heights, a turn about 0, and nothing; behind them one that follows a V."""
    torch.manual_seed(0)
    first = PWLU(3, bound=2.0, init="silu", dtype=torch.float64)
    second = PWLU(1, num_intervals=4, bound=2.0, init="leaky_relu", dtype=torch.float64)
    with torch.no_grad():
        first.points[0] += 0.3
        first.points[1] += 0.2 * torch.linspace(-2, 2, 17, dtype=torch.float64)
        for slope in (first.left_slope, first.right_slope):
            slope[1] += 0.2
        second.points.copy_(torch.tensor([[2.0, 1.0, 0.0, 1.0, 2.0]]))
        second.left_slope.fill_(-1.0)
    inputs = {layer: LayerInputs(layer) for layer in (first, second)}
    model, images = nn.Sequential(first, second), [torch.randn(4, 3, 5, 5).double() * 2 for _ in range(3)]
    seen: dict[PWLU, list[torch.Tensor]] = {first: [], second: []}

    def see(layer: PWLU, args: tuple[torch.Tensor]) -> None:
        seen[layer].append(rows_of(args[0], layer).double())  # rows_of gives float32
        inputs[layer].add(seen[layer][-1])

    for layer in seen:
        layer.register_forward_pre_hook(see)
    for image in images:
        model(image)
    x, z = (torch.cat(seen[layer], 1) for layer in (first, second))
    shift, turn = 0.3 / x[0].std(correction=0), 0.2 * x[1].square().mean().sqrt() / x[1].std(correction=0)
    found = inputs[first].summary()
    assert shift < turn and found["moved_median"] == pytest.approx(shift.item(), rel=1e-12)
    assert found["moved_largest"] == pytest.approx(turn.item(), rel=1e-12)
    # |z| less z/4 for z < 0 is 1.25 |z|
    moved = 1.25 * z.clamp(max=0).square().mean().sqrt() / z.std(correction=0)
    assert inputs[second].summary()["moved_median"] == pytest.approx(moved.item(), rel=1e-12)
    assert jaggedness(first) == pytest.approx(0, abs=1e-12)
    assert jaggedness(second) == pytest.approx((1.25**2 / 3 / (1.25**2 * 5 / 5)) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("init", ["relu", "leaky_relu", "silu", torch.sin])
def test_a_start_anywhere_has_not_moved(init: str | Callable[[torch.Tensor], torch.Tensor]) -> None:
    layer = PWLU(2, init=init)
    layer.reset_to_start(torch.tensor([-1.3, 0.2]), torch.tensor([2.2, 0.9]))  # no knot at 0
    found = summary_of(layer, torch.randn(2, 50, generator=torch.Generator().manual_seed(0)))
    assert found["moved_largest"] == 0 and jaggedness(layer) is None


def test_slopes_of_a_prelu_are_each_functions_own_start() -> None:
    layer = PWLU(2, init="leaky_relu", init_slope=torch.tensor([0.1, -0.4]))
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert summary_of(layer, x)["moved_largest"] == 0
    with torch.no_grad():
        layer.points[1] += 1
    assert summary_of(layer, x)["moved_largest"] == pytest.approx(1 / x[1].double().std(correction=0).item())


def test_jagged_tells_points_by_themselves_from_a_smooth_change() -> None:
    # k^2 for k = -8 ... 8 has second differences of 2, and 17544 is the sum of k^4.
    generator = torch.Generator().manual_seed(0)
    noise, bowl = torch.randn(200, 17, generator=generator), torch.linspace(-1, 1, 17).square().expand(3, 17)
    for change, expected in ((noise, 6**0.5), (bowl, 2 / (17544 / 17) ** 0.5), (torch.ones(1, 17), 0)):
        layer = PWLU(len(change) + 1)  # one more, which has not changed and does not count
        with torch.no_grad():
            layer.points[1:] += 0.01 * change
        assert jaggedness(layer) == pytest.approx(expected, rel=0.05, abs=1e-4)
    single = PWLU(1, num_intervals=1)
    with torch.no_grad():
        single.points += 1
    assert jaggedness(single) is None


def test_moved_of_a_run(trained: Path, tmp_path: Path, altered: Callable[..., Path]) -> None:
    model: dict[str, Any] = read_checkpoint(trained / "checkpoints" / "last.pt")["model"]
    name = next(key for key in model if key.endswith(".points")).removesuffix(".points")
    layer = PWLU(*model[f"{name}.left"].shape, num_intervals=model[f"{name}.points"].shape[1] - 1)
    own = {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    own[f"{name}.points"] = own[f"{name}.points"] + 0.5
    run, output = altered(trained, tmp_path / "run", model=model | own), tmp_path / "signal.json"
    learning_signal.main([str(run), "--output", str(output), "--steps", "2"])
    found = json.loads(output.read_text())["layers"][name]
    assert found["moved_median"] == pytest.approx(0.5 * found["width"], rel=1e-5)  # between -3 and 3
    assert found["jagged"] == pytest.approx(0, abs=1e-5)
