import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.records.curves import function_vertices
from engine.records.functions_log import LoggedFunctions
from engine.records.learned_functions import LayerFunctions
from engine.runs.folder import RunFolder
from pwlu import PWLU
from tools.functions import plot as plot_pwlu
from tools.functions.page import draw_evolution, draw_page, panel_histogram
from tools.functions.plot import choose_functions, choose_steps
from tools.functions.trained import open_trained, pwlu_layers_of


def learned(channels: int, seed: int = 0) -> PWLU:
    layer = PWLU(channels, num_intervals=4)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def functions_of(layer: PWLU) -> LayerFunctions:
    return LayerFunctions.of(layer, range(layer.num_parameters))


def logged_layers(seed: int) -> dict[str, LayerFunctions]:
    return {"act": functions_of(learned(4, seed)), "one": functions_of(learned(1, seed))}


def test_functions_are_chosen() -> None:
    layers = {f"layer{number}": functions_of(learned(8 if number else 1)) for number in range(10)}
    chosen = choose_functions(layers, None, 5)
    assert len(chosen) == 8 and list(chosen)[0] == "layer0" and list(chosen)[-1] == "layer9"
    assert chosen["layer0"] == [0] and chosen["layer9"] == [0, 2, 4, 5, 7]
    assert list(choose_functions(layers, ["all"], 5)) == list(layers)
    assert choose_functions(layers, ["layer3"], None) == {"layer3": list(range(8))}
    logged = {"wide": LayerFunctions.of(learned(64), [0, 16, 32, 47, 63]), **logged_layers(1)}
    assert choose_functions(logged, None, 5) == {"wide": [0, 16, 32, 47, 63], "act": [0, 1, 2, 3], "one": [0]}
    assert choose_functions(logged, None, 1) == {"wide": [32], "act": [2], "one": [0]}
    with pytest.raises(ValueError, match="6 functions of 'wide' were asked for, but .* 5 of its 64"):
        choose_functions(logged, ["act", "wide"], 6)


def test_page_shows_functions_boundaries_and_inputs() -> None:
    networks = {"few": learned(8), "one": learned(1), "many": learned(30)}
    layers = {name: functions_of(layer) for name, layer in networks.items()}
    functions = {"few": [0, 3, 7], "one": [0], "many": list(range(30))}
    counted = {name: panel_histogram(layers[name], chosen) for name, chosen in functions.items()}
    for name in layers:
        counted[name].add(torch.randn(len(functions[name]), 100))
    axes = draw_page(layers, functions, counted, "a title").get_axes()
    panels = [panel for panel in axes if panel.get_title()]
    assert [panel.get_title() for panel in panels] == ["few  (3 of 8)", "one  (layer-wise)", "many  (all 30)"]
    assert len(axes) == 6  # a panel of inputs under each
    lines = [
        line for line in panels[0].get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) > 2
    ]
    assert len({line.get_color() for line in lines}) == 3
    for line, index in zip(lines, functions["few"], strict=True):
        for drawn, expected in zip(line.get_data(), function_vertices(networks["few"], index), strict=True):
            assert drawn.tolist() == expected.tolist()
    circles = [line for line in panels[0].get_lines() if line.get_marker() == "o"]
    ends = [[networks["few"].left[index].item(), networks["few"].right[index].item()] for index in (0, 3, 7)]
    assert [circle.get_xdata().tolist() for circle in circles] == [pytest.approx(pair) for pair in ends]
    steps = [patch for patch in axes[axes.index(panels[0]) + 1].patches]
    assert [step.get_data().values.tolist() for step in steps] == [
        pytest.approx(share) for share in (100 * counted["few"].shares()).tolist()
    ]


def test_evolution_shows_each_function_after_each_step() -> None:
    steps = {f"step {number}": logged_layers(number) for number in (10, 20, 40)}
    figure = draw_evolution(steps, {"act": [0, 3], "one": [0]}, "a title")
    panels = [panel for panel in figure.get_axes() if panel.get_title()]
    assert [panel.get_title() for panel in panels] == [
        "act  channel 0",
        "act  channel 3",
        "one  (layer-wise)",
    ]
    lines = {line.get_label(): line for line in panels[1].get_lines() if not line.get_label().startswith("_")}
    assert list(lines) == ["step 10", "step 20", "step 40", "start"]
    assert len({line.get_color() for line in lines.values()}) == 4 and lines["start"].get_linestyle() == "--"
    x, y = function_vertices(learned(4, seed=20), 3)
    assert [drawn.tolist() for drawn in lines["step 20"].get_data()] == [x.tolist(), y.tolist()]
    first, start = (lines[label].get_xydata()[1:-1].tolist() for label in ("step 10", "start"))
    assert first == start  # all but the ends of the tails
    low, high = panels[1].get_xlim()
    assert lines["start"].get_xdata()[0] < low and high < lines["start"].get_xdata()[-1]


def test_of_many_steps_eight_are_chosen_the_realignment_among_them() -> None:
    few, many = ([LoggedFunctions(5 * number, number, {}) for number in range(count)] for count in (8, 91))
    assert choose_steps(few, 5) == few
    assert [entry.epoch for entry in choose_steps(many, 0)] == [0, 13, 26, 39, 51, 64, 77, 90]
    assert [entry.epoch for entry in choose_steps(many, 25)] == [0, 5, 26, 39, 51, 64, 77, 90]
    assert [entry.epoch for entry in choose_steps(many, 445)] == [0, 13, 26, 39, 51, 64, 89, 90]
    assert [entry.epoch for entry in choose_steps(many, 7)] == [0, 13, 26, 39, 51, 64, 77, 90]  # not logged


def test_page_of_a_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = list(pwlu_layers_of(open_trained(trained)))[0]
    arguments = [str(trained), "--output", str(tmp_path), "--images", "6", "--layers", name, "--all-channels"]
    plot_pwlu.main(arguments)
    assert "tiny: input histograms: 6/6 images" in capsys.readouterr().out
    record = json.loads((tmp_path / "tiny.json").read_text())
    assert (record["run"], record["step"], record["inputs"]["images"]) == ("tiny", 6, 6)
    assert list(record["layers"]) == [name] and "commit" in record["code"]
    drawn = record["layers"][name]
    layer = pwlu_layers_of(open_trained(trained))[name]
    assert drawn["channels"] == list(range(layer.num_parameters))
    x, y = function_vertices(layer, 1)
    assert drawn["x"][1] == x.tolist() and drawn["y"][1] == y.tolist()
    totals = {sum(counts) for counts in drawn["inputs"]["counts"]}
    assert len(totals) == 1 and totals.pop() % 6 == 0
    with Image.open(tmp_path / "tiny.png") as picture:
        assert picture.width > 300


def test_a_lone_checkpoint_is_drawn_without_inputs(trained: Path, tmp_path: Path) -> None:
    lone = shutil.copy(trained / "checkpoints" / "last.pt", tmp_path / "lone.pt")
    plot_pwlu.main([str(lone), "--output", str(tmp_path), "--labels", "lone", "--no-inputs"])
    record = json.loads((tmp_path / "lone.json").read_text())
    assert record["inputs"] is None and record["trained_with"] is None and len(record["layers"]) == 8
    assert (tmp_path / "lone.png").exists()


def test_evolution_of_a_run(trained: Path, tmp_path: Path) -> None:
    """Two epochs of three steps, realigned between them: drawn at the beginning, there and at the end."""
    layers = pwlu_layers_of(open_trained(trained))
    name = list(layers)[0]
    arguments = [str(trained), "--output", str(tmp_path), "--layers", name, "--functions", "2"]
    plot_pwlu.main([*arguments, "--evolution"])
    record = json.loads((tmp_path / "tiny_evolution.json").read_text())
    assert [(entry["step"], entry["epoch"]) for entry in record["steps"]] == [(0, 0), (3, 1), (6, 2)]
    assert record["logged_steps"] == [0, 3, 6] and "commit" in record["code"]
    assert (record["of"]["run"], record["of"]["step"]) == ("tiny", 6)
    end = record["steps"][-1]["layers"]
    assert list(end) == [name] and end[name]["channels"] == [0, layers[name].num_parameters - 1]
    x, y = function_vertices(layers[name], 0)  # of the last checkpoint, which is of the same step
    assert end[name]["x"][0] == pytest.approx(x.tolist(), rel=1e-5, abs=1e-6)
    assert end[name]["y"][0] == pytest.approx(y.tolist(), rel=1e-5, abs=1e-6)
    with Image.open(tmp_path / "tiny_evolution.png") as picture:
        assert picture.width > 300


def test_evolution_of_a_detector(trained_detector: Path) -> None:
    opened = open_trained(trained_detector)
    _, record = plot_pwlu.evolution(opened, names=["all"], at_most=2)
    assert [entry["step"] for entry in record["steps"]] == [0, 1, 2]
    assert list(record["steps"][0]["layers"]) == list(pwlu_layers_of(opened))


def test_evolution_marks_the_realignment_and_says_what_was_left_out(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    begin, *_ = lines = RunFolder(run).functions.read_text().splitlines()
    more = [begin.replace('"step": 0,', f'"step": {step},') for step in range(100, 110)]
    RunFolder(run).functions.write_text("\n".join([*lines, *more]))
    figure, record = plot_pwlu.evolution(open_trained(run), at_most=1)
    assert "run: learned functions after 8 of 13 logged steps" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 9 and labels[1] == "3 (1, realigned)" and labels[-1] == "start"
    assert len(record["steps"]) == 8 and len(record["logged_steps"]) == 13


def test_what_cannot_be_done_is_explained(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lone = tmp_path / "lone" / "checkpoints" / "last.pt"
    lone.parent.mkdir(parents=True)
    shutil.copy(trained / "checkpoints" / "last.pt", lone)
    short = shutil.copytree(trained, tmp_path / "short")
    log = RunFolder(short).functions
    log.write_text(log.read_text().splitlines()[0])
    for arguments, sentence in [
        ([trained, "--layers", "layr1"], "--layers: no PWLU is called 'layr1'"),
        ([trained, "--functions", "0"], "argument --functions: expected an integer >= 1"),
        ([trained, "--evolution", "--functions", "6"], "but the run logged 5 of its"),
        ([trained, "--evolution", "--all-channels"], "but the run logged 5 of its"),
        ([lone], "config.yaml: cannot read it"),
        ([lone, "--evolution"], "curves.jsonl is missing, the log of the run's functions"),
        ([trained, "--evolution", "--images", "5"], "--evolution draws no inputs"),
        (
            [trained, "--evolution", "--averaged"],
            "each step's own weights; leave --averaged out",
        ),
        ([short, "--evolution"], "has functions after 1 step(s), expected 2 or more"),
    ]:
        with pytest.raises(SystemExit):
            plot_pwlu.main(["--output", str(tmp_path / "out"), *map(str, arguments)])
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
