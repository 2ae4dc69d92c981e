"""V-shapes and straight lines among learned functions."""

import json
from pathlib import Path

import pytest
import torch

from pwlu import PWLU
from tools.functions import shapes as learned_shapes
from tools.functions.shapes import draw_shapes, rises, summarize


def layer_of(*functions: list[float]) -> PWLU:
    """A PWLU on [-2, 2] with four intervals and these heights at -2, -1, 0, 1, 2."""
    layer = PWLU(len(functions), num_intervals=4, bound=2)
    with torch.no_grad():
        layer.points.copy_(torch.tensor(functions))
    return layer


def test_crossed_boundaries_and_layer_wise_functions_are_judged_too() -> None:
    layer = layer_of([4, 2, 0, 2, 4])
    with torch.no_grad():
        layer.left.fill_(1.0)
        layer.right.fill_(-1.0)
    found = rises(layer, torch.tensor([-2.0]).double(), torch.tensor([2.0]).double())
    assert all(0 <= values.item() <= 1 for values in found.values())


def test_rises_between_the_ends_of_the_inputs() -> None:
    layer = layer_of([0, 0, 0, 1, 2], [4, 2, 0, 2, 4], [-2, -1, 0, 1, 2], [3, 3, 3, 3, 3])
    low, high = torch.full((4,), -1.5).double(), torch.full((4,), 1.0).double()
    found = rises(layer, low, high)
    assert found["left_rise"].tolist() == pytest.approx([0, 1, 0, 0])
    assert found["right_rise"].tolist() == pytest.approx([1, 2 / 3, 1, 0])
    assert found["left_fall"].tolist() == pytest.approx([1, 0, 1, 0])
    assert found["right_fall"].tolist() == pytest.approx([0, 1 / 3, 0, 0])
    found = rises(layer, torch.full((4,), 0.5).double(), torch.full((4,), 3.0).double())
    assert found["left_rise"][1] == 0 and found["right_rise"][1] == 1  # on one side of a V there is none


def test_vs_inverted_vs_and_waves_are_counted() -> None:
    names = ("left_rise", "right_rise", "left_fall", "right_fall", "line", "relu_line")
    shapes = [(1, 0.5, 0, 0.5), (0.05, 1, 0.95, 0), (0, 0.5, 1, 0.5), (0.5, 0.5, 0.5, 0.5)]
    layer = {name: [] for name in names}
    for shape in shapes:
        for name, value in zip(names, (*shape, 0.25, 0.75), strict=True):
            layer[name].append(value)
    expected = {"functions": 4, "v_shaped": 1, "inverted_v_shaped": 1, "wavy": 1}
    assert summarize(layer) == expected | {"median_line": 0.25, "median_relu_line": 0.75}


def test_record_and_picture_of_a_run(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "shapes.json"
    learned_shapes.main([str(trained), str(trained), "--labels", "one", "two", "--output", str(output)])
    record = json.loads(output.read_text())
    one, two = record["checkpoints"]
    assert (one["label"], two["label"]) == ("one", "two") and one["layers"] == two["layers"]
    assert "code" in record and output.with_suffix(".png").stat().st_size > 10_000
    for layer in one["layers"].values():
        assert len(layer["line"]) == layer["summary"]["functions"] == len(layer["left_rise"])
        assert all(0 <= value <= 1 for name in layer if name != "summary" for value in layer[name])
        # two epochs, one of them as ReLU: still close to it
        assert layer["summary"]["median_line"] == pytest.approx(layer["summary"]["median_relu_line"], abs=0.1)
    upper, lower = draw_shapes([one, two]).get_axes()
    assert len(upper.get_lines()) == 2 and len(lower.get_lines()) == 4
    assert [text.get_text() for text in lower.get_xticklabels()] == list(one["layers"])
    names = list(one["layers"])[1:]
    other = one | {"layers": {name: one["layers"][name] for name in names}}
    first, _, second, last = draw_shapes([one, other, two]).get_axes()  # one and two are of the same network
    assert len(first.get_lines()) == 2 and len(second.get_lines()) == 1 and len(last.get_lines()) == 2
    assert [text.get_text() for text in last.get_xticklabels()] == names
