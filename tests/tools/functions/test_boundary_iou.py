import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import train_imagenet
from engine.config.load import IMAGENET, load_config
from engine.processes.distributed import World
from engine.training.checkpoint import read_checkpoint
from pwlu import PWLU
from tools.functions import boundary_iou
from tools.functions.boundary_iou import draw_ious


@pytest.mark.parametrize(
    ("boundaries", "inputs", "expected"),
    [
        ((-3, 3), (-3, 3), 1.0),  # equal
        ((-3, 3), (-1, 2), 0.5),  # inputs inside
        ((-1, 2), (-3, 3), 0.5),  # boundaries inside
        ((-1, 1), (0, 3), 0.25),  # overlapping
        ((0, 3), (-1, 1), 0.25),
        ((0, 1), (2, 4), 0.0),  # apart
        ((0, 1), (1, 4), 0.0),  # touching
        ((3, -3), (-1, 1), 0.0),  # right < left: no inside
        ((-3, 3), (1, 1), 0.0),  # the input does not vary
        ((2, 2), (2, 2), 0.0),  # nothing has a length
    ],
)
def test_equation_7(boundaries: tuple[float, float], inputs: tuple[float, float], expected: float) -> None:
    left, right, low, high = (torch.tensor([float(value)]) for value in (*boundaries, *inputs))
    assert boundary_iou.boundary_iou(left, right, low, high).tolist() == [expected]


def inputs_in_memory(folder: Path) -> dict[str, tuple[PWLU, torch.Tensor]]:
    """Every PWLU of the run with all its inputs, found by the trainer's own means."""
    config = load_config(folder / "config.yaml", ["runtime.fuse_batch_norm=false"], IMAGENET)
    task, model, _ = train_imagenet.build(config, World())
    model.load_state_dict(read_checkpoint(folder / "checkpoints" / "last.pt")["model"])
    layers = {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    with torch.no_grad():
        model.eval()
        for batch in task.val_loader(2):
            task.predict(model, batch)
    return {name: (layers[name], torch.cat(parts)) for name, parts in seen.items()}


def test_record_and_picture_of_a_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "iou.json"
    best = trained / "checkpoints" / "best.pt"
    boundary_iou.main([str(trained), str(best), "--output", str(output)])
    printed = capsys.readouterr().out
    assert "tiny: percentiles: 15/15 images" in printed and "tiny/best: percentiles: 15/15" in printed
    record = json.loads(output.read_text())
    entry = record["checkpoints"][0]
    facts = [entry[key] for key in ("label", "run", "step", "phase", "finished")]
    assert facts == ["tiny", "tiny", 6, 2, True]
    assert entry["experiment"]["model.name"] == "test_resnet" and entry["trained_with"]["packages"]["torch"]
    assert entry["inputs"]["images"] == 15 and entry["inputs"]["split"] == "val" and "code" in record
    assert str(trained.parent) not in output.read_text()
    expected = inputs_in_memory(trained)
    assert list(entry["layers"]) == list(expected)
    for name, (layer, x) in expected.items():
        check_layer(entry["layers"][name], layer, x)
    ious = [value for layer in entry["layers"].values() for value in layer["iou"]]
    assert entry["summary"]["functions"] == len(ious)
    assert entry["summary"]["mean"] == pytest.approx(sum(ious) / len(ious), abs=1e-4)
    assert 0.2 < entry["summary"]["quartile2"] <= 1
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.width > 600


def check_layer(entry: dict[str, Any], layer: PWLU, x: torch.Tensor) -> None:
    rows = x.transpose(0, 1).flatten(1)
    low, high = torch.quantile(rows, torch.tensor([0.05, 0.95]), dim=1, interpolation="nearest")
    assert entry["elements"] == rows.shape[1]
    found = {name: torch.tensor(entry[name]) for name in ("left", "right", "p05", "p95")}
    for name, values in {"left": layer.left, "right": layer.right}.items():
        torch.testing.assert_close(found[name], values.detach(), rtol=1e-6, atol=1e-9)
    for name, values in {"p05": low, "p95": high}.items():
        torch.testing.assert_close(found[name], values, rtol=2**-7, atol=2**-16)
    ious = boundary_iou.boundary_iou(*found.values())
    torch.testing.assert_close(torch.tensor(entry["iou"], dtype=torch.float64), ious, rtol=1e-5, atol=1e-6)


def test_few_images_of_the_training_split_and_averaged_weights(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "iou.json"
    arguments = [str(trained), "--split", "train", "--images", "7", "--averaged", "--labels", "a name"]
    boundary_iou.main([*arguments, "--output", str(output)])
    entry = json.loads(output.read_text())["checkpoints"][0]
    assert (entry["inputs"]["split"], entry["inputs"]["images"]) == ("train", 7)
    assert (entry["label"], entry["weights"]) == ("a name", "averaged")
    average = read_checkpoint(trained / "checkpoints" / "last.pt")["ema"]["weights"]
    for name, layer in entry["layers"].items():
        torch.testing.assert_close(torch.tensor(layer["left"]), average[f"{name}.left"], rtol=1e-6, atol=1e-9)


def entry_of(label: str, ious: list[float]) -> dict[str, Any]:
    layers = {"act": dict.fromkeys(("left", "right", "p05", "p95", "iou"), ious)}
    return {"label": label, "layers": layers, "summary": boundary_iou.summarize(layers)}


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (3, 1), (4, 4)])
def test_picture_shows_every_checkpoint(count: int, panels: int) -> None:
    entries = [entry_of(f"run {number}", [0.1 * number, 0.5, 1.0]) for number in range(count)]
    axes = draw_ious(entries).get_axes()
    assert len(axes) == panels
    texts = [text.get_text() for panel in axes for text in panel.get_legend().get_texts()]
    assert texts == [f"run {number}: 3 functions, median 0.50" for number in range(count)]
    bars = [patch.get_height() for patch in axes[0].patches if hasattr(patch, "get_height")]
    assert sum(bars) == pytest.approx(100 * count / panels)


def test_what_cannot_be_done_is_explained(
    trained: Path, altered: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(trained / "checkpoints" / "last.pt")
    plain = {key: value for key, value in content["model"].items() if not key.endswith("points")}
    relu = altered(
        trained,
        tmp_path / "relu",
        model=plain,
        experiment=content["experiment"] | {"activation.name": "relu"},
    )
    bad = {key: torch.full_like(value, float("nan")) if value.is_floating_point() else value
           for key, value in content["model"].items() if "act" not in key}  # fmt: skip
    (tmp_path / "garbage.pt").write_bytes(b"no checkpoint")
    (tmp_path / "cut.pt").write_bytes((trained / "checkpoints" / "last.pt").read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    for arguments, sentence in [
        ([tmp_path / "nothing"], "nothing: there is no such run folder or checkpoint"),
        ([tmp_path / "empty"], "no run that has saved anything"),
        ([tmp_path / "garbage.pt"], "garbage.pt: not a checkpoint of this project"),
        ([tmp_path / "cut.pt"], "this checkpoint is damaged"),
        ([relu], "no PWLU in this network, its activation is 'relu'"),
        ([altered(trained, tmp_path / "no_ema", ema=None), "--averaged"], "has no averaged weights"),
        ([altered(trained, tmp_path / "nan", model=content["model"] | bad)], "are NaN or infinite"),
        ([altered(trained, tmp_path / "data", data={"num_val": 99})], "num_val was 99, is now 15"),
        ([trained, trained], "two of the runs are called 'tiny'"),
        ([trained, "--labels", "a", "b"], "--labels: 2 for 1 runs"),
        ([trained, "--images", "1"], "--images is 1, expected 2 or more"),
        ([trained, "--set", "model.name=resnet18"], "model.name was 'test_resnet', is now 'resnet18'"),
        ([trained, "--set", "data.rot=x"], "did you mean 'data.root'?"),
        ([trained, "--output", tmp_path / "iou.txt"], "expected a name that ends in .json"),
    ]:
        with pytest.raises(SystemExit):
            boundary_iou.main(["--output", str(tmp_path / "iou.json"), *map(str, arguments)])
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("iou.*"))
