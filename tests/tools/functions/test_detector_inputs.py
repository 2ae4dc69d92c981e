"""The inputs of a detector's PWLUs, as tools.functions.boundary_iou and tools.functions.plot collect them."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

import train_coco
from engine.config.load import COCO, load_config
from engine.data.picture import resized, size_of, to_tensor
from engine.processes.distributed import World
from engine.training.checkpoint import read_checkpoint
from pwlu import PWLU
from tools.functions import boundary_iou
from tools.functions import plot as plot_pwlu
from tools.functions.inputs import open_network
from tools.functions.trained import open_trained, pwlu_layers_of

needs_detectron2 = pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")
MASK_HEAD = ("model.roi_heads.mask_head", "model.roi_heads.mask_predictor")


def inputs_in_memory(folder: Path) -> tuple[dict[str, PWLU], dict[str, list[torch.Tensor]]]:
    """Every PWLU of the run, and what its calls got in the trainer's own evaluation."""
    config = load_config(folder / "config.yaml", ["runtime.fuse_batch_norm=false"], COCO)
    task, model, _ = train_coco.build(config, World())
    model.load_state_dict(read_checkpoint(folder / "checkpoints" / "last.pt")["model"])
    layers = {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    assert task.evaluate(model, lambda: False) is not None
    return layers, seen


@pytest.mark.parametrize(
    ("architecture", "library"),
    [
        ("mask_rcnn", "torchvision"),
        ("retinanet", "torchvision"),
        pytest.param("mask_rcnn", "detectron2", marks=needs_detectron2),
        pytest.param("retinanet", "detectron2", marks=needs_detectron2),
    ],
)
def test_record_says_what_the_evaluation_of_training_sees(
    architecture: str, library: str, detector_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = detector_run(architecture, library), tmp_path / "iou.json"
    boundary_iou.main([str(folder), "--output", str(output)])
    (entry,) = json.loads(output.read_text())["checkpoints"]
    assert entry["inputs"]["images"] == 7 and entry["inputs"]["num_categories"] == 3
    layers, seen = inputs_in_memory(folder)
    assert list(entry["layers"]) == list(layers) and not entry["layers_without_input"]
    assert set(pwlu_layers_of(open_trained(folder))) == set(layers)
    calls = {len(found) for found in seen.values()}
    assert {7, 35} <= calls  # the trunk once per image, a shared head on five levels
    for name, found in entry["layers"].items():
        rows = torch.cat([part.transpose(0, 1).flatten(1) for part in seen[name]], dim=1)
        assert found["elements"] == rows.shape[1]
        expected = torch.quantile(rows, torch.tensor([0.05, 0.95]), dim=1, interpolation="nearest")
        for key, values in zip(("p05", "p95"), expected, strict=True):
            torch.testing.assert_close(torch.tensor(found[key]), values, rtol=2**-7, atol=2**-16)
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.width > 600


def test_training_images_one_by_one_and_never_in_a_mirror(trained_detector: Path) -> None:
    trained = open_trained(trained_detector, averaged=True)
    network = open_network(trained, split="train", images=6, overrides=["runtime.amp=bf16"])
    task, _, _ = train_coco.build(load_config(trained_detector / "config.yaml", [], COCO), World())
    data = task.data
    expected = [int(data.trained_on[number]) for number in (0, 2, 4, 7, 9, 11)]
    batches = list(network.loader)
    assert [batch.image_ids for batch in batches] == [
        [int(data.train.annotations.image_ids[place])] for place in expected
    ]
    for batch, place in zip(batches, expected, strict=True):
        picture = data.train.picture(place)
        assert batch.original_sizes == [size_of(picture)]
        pixels = to_tensor(resized(picture, data.resize.size(*size_of(picture))))
        assert torch.equal(batch.images[0], pixels)
    reached = network.watch(lambda name, rows: None, list(network.layers), "")
    assert reached == list(network.layers) and not network.model.training
    described = network.describe()
    assert (described["split"], described["images"], described["arithmetic"]) == ("train", 6, "bf16")
    average = trained.content["ema"]["weights"]
    for name, layer in network.layers.items():
        assert torch.equal(layer.left, average[f"{name}.left"])


def blind(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a Mask R-CNN's last checkpoint, altered so that everything is background."""
    model = read_checkpoint(run / "checkpoints" / "last.pt")["model"]
    model["model.roi_heads.box_predictor.cls_score.bias"][0] = 1e4
    return model


def test_layers_without_any_input_are_named_and_left_out(
    trained_detector: Path, altered: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = altered(trained_detector, tmp_path / "blind", model=blind(trained_detector))
    output = tmp_path / "iou.json"
    boundary_iou.main([str(folder), "--output", str(output), "--images", "3"])
    (entry,) = json.loads(output.read_text())["checkpoints"]
    layers = list(pwlu_layers_of(open_trained(folder)))
    masks = [name for name in layers if name.startswith(MASK_HEAD)]
    assert len(masks) == 5 and entry["layers_without_input"] == masks
    assert set(entry["layers"]) == set(layers) - set(masks)
    assert entry["summary"]["functions"] == sum(len(layer["iou"]) for layer in entry["layers"].values())
    printed = capsys.readouterr().out
    assert printed.count(f"blind: 5 of {len(layers)} PWLUs had no input from these images") == 1
    arguments = [str(folder), "--output", str(tmp_path), "--images", "3", "--layers", layers[0], masks[0]]
    plot_pwlu.main(arguments)
    assert "blind: 1 of 2 PWLUs had no input from these images" in capsys.readouterr().out
    record = json.loads((tmp_path / "blind.json").read_text())
    totals = {name: sum(map(sum, record["layers"][name]["inputs"]["counts"])) for name in record["layers"]}
    assert totals[layers[0]] > 0 and totals[masks[0]] == 0
    assert (tmp_path / "blind.png").exists()


def test_validation_images_are_enough(
    trained_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As --eval, which does not open the training split either."""
    root = Path(load_config(trained_detector / "config.yaml", [], COCO).data.root)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root, elsewhere, ignore=shutil.ignore_patterns("*train2017*"))
    arguments = [str(trained_detector), "--output", str(tmp_path / "iou.json"), "--images", "2"]
    arguments += ["--set", f"data.root={elsewhere}"]
    boundary_iou.main(arguments)
    assert (tmp_path / "iou.json").exists()
    with pytest.raises(SystemExit):
        boundary_iou.main([*arguments, "--split", "train"])
    assert "instances_train2017.json" in capsys.readouterr().err


def test_what_cannot_be_done_is_explained(
    trained_detector: Path, altered: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(load_config(trained_detector / "config.yaml", [], COCO).data.root)
    broken = shutil.copytree(root, tmp_path / "broken")
    sorted((broken / "val2017").iterdir())[0].write_bytes(b"not a picture")
    data = read_checkpoint(trained_detector / "checkpoints" / "last.pt")["data"]
    others = altered(trained_detector, tmp_path / "others", data=data | {"num_train": 5})
    for arguments, sentence in [
        ([trained_detector, "--set", "model.architecture=retinanet"], "model.architecture was 'mask_rcnn'"),
        ([trained_detector, "--set", "data.image_size_px=9"], "unknown key 'data.image_size_px'"),
        ([trained_detector, "--set", f"data.root={broken}"], "val2017"),
        ([others, "--split", "train"], "num_train was 5, is now 12"),
    ]:
        with pytest.raises(SystemExit):
            boundary_iou.main(["--output", str(tmp_path / "iou.json"), *map(str, arguments)])
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("iou.*"))
