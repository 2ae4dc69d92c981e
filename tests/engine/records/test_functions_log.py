import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.records.curves import function_vertices, pwlu_layers
from engine.records.functions_log import FunctionsLog, read_functions
from engine.records.learned_functions import LayerFunctions
from engine.runs.folder import RunFolder
from engine.runs.reporting import Reporting
from engine.training.loop import Plan
from pwlu import PWLU

PLAN = Plan(
    total_steps=8,
    steps_per_epoch=4,
    images_per_step=8,
    log_every_steps=1,
    checkpoint_every_steps=2,
    eval_every_steps=4,
    plot_every_steps=2,
)


def model(channels: int = 64) -> nn.Sequential:
    """Return a network with a layer of one function and one of many, all of them different."""
    torch.manual_seed(0)
    layers = nn.Sequential(PWLU(1, num_intervals=4), nn.Identity(), PWLU(channels, num_intervals=6))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layers


def move(layers: nn.Sequential, step: int) -> None:
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.fill_(step)


def report(folder: Path, steps: range, *, resume_step: int = 0, active: bool = True) -> Path:
    """Draw a network at some steps, at each of which it is another; return its log's path."""
    folder.mkdir(exist_ok=True)
    layers, run = model(), RunFolder(folder)
    reporting = Reporting(run, layers, PLAN, resume_step=resume_step, active=active)
    for step in steps:
        move(layers, step)
        reporting.plot(step)
    reporting.close()
    return run.functions


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest together."""
    monkeypatch.setattr("engine.runs.reporting.draw_curves", lambda model, title: None)


def test_what_is_written_and_read_are_some_functions_of_every_layer(tmp_path: Path) -> None:
    layers = model()
    log = FunctionsLog(tmp_path / "c.jsonl", 0)
    log.write(3, 0.75, pwlu_layers(layers))
    log.close()
    (line,) = (tmp_path / "c.jsonl").read_text().splitlines()
    entry = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert (entry["kind"], entry["step"], entry["epoch"], list(entry["layers"])) == (
        "functions", 3, 0.75, ["0", "2"]
    )  # fmt: skip
    one, many = entry["layers"].values()
    assert (one["functions"], one["channels"]) == (1, [0])
    assert (many["functions"], many["channels"]) == (64, [0, 16, 32, 47, 63])
    assert max(len(f"{value:g}".lstrip("-")) for value in many["left"]) <= 12
    for name, parameter in layers[2].named_parameters():
        assert torch.tensor(many[name]).allclose(parameter[many["channels"]], rtol=1e-6, atol=0)
    assert {len(points) for points in many["points"]} == {7}
    (logged,) = read_functions(tmp_path / "c.jsonl")
    assert (logged.step, logged.epoch, logged.layers["2"].total) == (3, 0.75, 64)
    for channel, function in logged.layers["2"].functions.items():
        for drawn, expected in zip(function.corners(), function_vertices(layers[2], channel), strict=True):
            torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_survives_as_null() -> None:
    layer = PWLU(2, num_intervals=2)
    with torch.no_grad():
        layer.left[1], layer.points[0, 1] = -math.inf, math.nan
    values = LayerFunctions.of(layer, [0, 1]).to_json()
    assert values["left"][1] is None and values["points"][0][1] is None
    functions = LayerFunctions.from_json(json.loads(json.dumps(values, allow_nan=False))).functions
    assert math.isnan(functions[1].left) and math.isnan(functions[0].points[1])
    assert functions[0].left == pytest.approx(layer.left[0].item())


def test_a_resumed_run_has_the_lines_of_one_that_nothing_interrupted(tmp_path: Path) -> None:
    """Killed after it drew step 6, while it wrote more, and gone on from the checkpoint of step 4."""
    whole = report(tmp_path / "whole", range(0, 9, 2))
    killed = report(tmp_path / "killed", range(0, 7, 2))
    with open(killed, "a") as file:
        file.write('{"kind": "functions", "step": 7, "lay')
    assert report(tmp_path / "killed", range(4, 9, 2), resume_step=4) == killed
    assert killed.read_text() == whole.read_text()
    assert [entry.step for entry in read_functions(whole)] == [0, 2, 4, 6, 8]
    report(tmp_path / "killed", range(1), resume_step=0)  # begins again
    assert killed.read_text() == whole.read_text().splitlines(keepends=True)[0]


def test_only_the_main_process_and_models_with_pwlu_have_a_log(tmp_path: Path) -> None:
    assert not report(tmp_path, range(0, 9, 2), active=False).exists()
    folder = RunFolder(tmp_path)
    reporting = Reporting(folder, nn.Linear(1, 1), PLAN, resume_step=0, active=True)
    reporting.plot(0)
    reporting.close()
    assert folder.metrics.exists() and not folder.functions.exists()


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "train", "step": 3, "epoch": 0.5, "loss": 1.25}',
        '{"step": 3, "epoch": 0.5, "layers": []}',
        '{"step": 3, "epoch": 0.5, "layers": {"a": {"functions": 1, "channels": [0], "left": [1]}}}',
    ],
)
def test_other_lines_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"c\.jsonl: a line is no record of learned functions"):
        read_functions(path)
