"""The detectors' training program from the outside; what it shares with the other: test_train_imagenet.py."""

import json
import math
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_coco
from engine.config.load import COCO, ConfigError, load_config
from engine.data import DataError
from engine.tasks.coco_scoring import score
from engine.training.checkpoint import CheckpointError
from tests import fault_injection
from tests.engine.data.coco.coco_files import annotation_path, write_coco, write_split
from tests.photographs import needs_photographs, unpack
from tests.training_runs import (
    COCO_SETTINGS,
    KILLED,
    REPOSITORY,
    Outcome,
    assert_same_bits,
    records,
    weights,
)
from tests.training_runs import run as run_program

run = partial(run_program, program="train_coco")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images with objects, of 18, and 7 to evaluate on."""
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def settings(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a run of seconds, all but `output`."""
    path = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    path.write_text(COCO_SETTINGS)
    return ["--config", str(path), f"data.root={root}"]


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of two processes that nothing interrupted: its folder and how it ended."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = run(folder / "logs", [*settings, f"output={folder}"], processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    return folder, outcome


def test_a_run_tells_its_story(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    lines = outcome.outputs[0].splitlines()
    assert outcome.outputs[1] == ""
    assert "12 training and 7 validation images with objects of 3 categories" in lines
    assert "3 steps per epoch, each of 4 images: 2 x cpu x 1 micro-batches x 2" in lines
    told = [(entry["kind"], entry["step"], entry.get("phase")) for entry in records(folder)]
    steps = [("train", step, 1 if step <= 4 else 2) for step in range(1, 9)]
    realign, first, last = ("realign", 4, None), ("eval", 5, None), ("eval", 8, None)
    assert told == [*steps[:4], realign, steps[4], first, *steps[5:], last]
    terms = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    first_step = records(folder)[0]
    assert terms <= first_step.keys()
    assert first_step["loss"] == pytest.approx(sum(first_step[term] for term in terms))
    rates = [entry["lr"] for entry in records(folder) if entry["kind"] == "train"]
    assert rates == pytest.approx([2e-5, 0.01001, 0.02, 0.02, 0.02, 0.002, 0.002, 0.002])


def test_a_run_leaves_everything_in_its_folder(
    whole: tuple[Path, Outcome], settings: list[str], root: Path
) -> None:
    folder, _ = whole
    config = load_config(settings[1], [settings[2], f"output={folder}"], COCO)
    assert load_config(folder / "config.yaml", [], COCO) == config
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"] == {"num_train": 12, "num_val": 7, "num_categories": 3}
    start = manifest["starts"][0]
    assert start["detector"]["name"] == "torchvision" and start["detector"]["version"]
    assert start["packages"]["pycocotools"]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Images("eval/detections")] == [5, 8]
    assert [event.step for event in events.Scalars("eval/bbox_AP")] == [5, 8]
    assert len(events.Scalars("train/loss_mask")) == 8
    with Image.open(folder / "detections.png") as picture:
        assert picture.width > 500
    results = json.loads((folder / "detections.json").read_text())
    last = records(folder)[-1]
    truth = json.loads(annotation_path(root, "val2017").read_text())
    for name, value in score(truth, results, ("bbox", "segm")).items():
        assert value < 0 or last[name] == pytest.approx(100 * value)
    assert {entry["image_id"] for entry in results} <= {image["id"] for image in truth["images"]}
    assert last["images"] == 7 and "ema_segm_AP" in last


def test_scoring_may_take_longer_than_a_collective_waits(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    arguments = [*settings, f"output={tmp_path}", "--eval", str(whole[0] / "checkpoints" / "last.pt")]
    fault = partial(fault_injection.score_until_missed, folder=tmp_path)
    outcome = run(tmp_path / "logs", arguments, processes=2, fault=fault)
    assert outcome.statuses == [0, 0], outcome.output
    *_, remark, result = outcome.outputs[0].splitlines()
    assert "the main process" in remark and "scoring the detections" in remark
    assert json.loads(result)["bbox_AP"] == records(whole[0])[-1]["bbox_AP"]


def test_killed_again_and_again_the_same_command_reaches_the_same_weights(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    arguments = [*settings, f"output={tmp_path}"]
    faults = [
        partial(fault_injection.die_in_step, victim=1, step=4),  # after the checkpoint of step 2, in phase I
        partial(fault_injection.die_in_evaluation, victim=0, evaluation=1),  # in the middle of an epoch
        partial(fault_injection.die_in_step, victim=0, step=2),
    ]
    for fault in faults:
        outcome = run(tmp_path / "logs", arguments, processes=2, fault=fault)
        assert sorted(outcome.statuses) == [KILLED, 1], outcome.output
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    assert_same_bits(weights(tmp_path), weights(whole[0]))
    assert_same_bits(weights(tmp_path, "best.pt"), weights(whole[0], "best.pt"))
    assert records(tmp_path) == records(whole[0])
    for name in ("detections.json", "curves.jsonl"):
        assert (tmp_path / name).read_text() == (whole[0] / name).read_text()


def test_a_signal_saves_and_the_same_command_goes_on(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    arguments = [*settings, f"output={tmp_path}", "data.workers=1"]
    stopped = run(
        tmp_path / "logs", arguments, processes=2, fault=partial(fault_injection.signal_in_step, step=3)
    )
    assert "stopped by" in stopped.outputs[0] and "at step 3, saved" in stopped.outputs[0], stopped.output
    assert json.loads((tmp_path / "REQUEUE").read_text())["step"] == 3
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0] and "resuming at step 3" in outcome.outputs[0], outcome.output
    assert_same_bits(weights(tmp_path), weights(whole[0]))


def test_evaluation_of_a_checkpoint_by_one_and_two_processes(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    best = str(whole[0] / "checkpoints" / "best.pt")
    results, found = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        arguments = [*settings, f"output={folder}", "--eval", best]
        outcome = run(tmp_path / "logs", arguments, processes=processes)
        assert outcome.statuses == [0] * processes, outcome.output
        results.append(json.loads(outcome.outputs[0].splitlines()[-1]))
        found.append(json.loads((folder / "evaluation_of_best" / "detections.json").read_text()))
        assert (folder / "evaluation_of_best" / "detections.png").exists()
    assert results[0] == results[1] and found[0] == found[1]
    step = results[0]["step"]
    (recorded,) = [entry for entry in records(whole[0]) if (entry["kind"], entry["step"]) == ("eval", step)]
    scores = {name: value for name, value in recorded.items() if "_A" in name}
    assert scores and {name: results[0][name] for name in scores} == scores
    with pytest.raises(CheckpointError, match="model.architecture was 'mask_rcnn', is now 'retinanet'"):
        train_coco.main([*settings, "model.architecture=retinanet", "--eval", best])


def test_evaluation_matches_categories_by_name_and_needs_val_alone(
    whole: tuple[Path, Outcome], settings: list[str], root: Path, tmp_path: Path, capsys: Any
) -> None:
    """As of a file that another program wrote, which numbers the categories in its own way."""
    content = json.loads(annotation_path(root, "val2017").read_text())
    numbers = {1: 3, 7: 1, 90: 0}
    for category in content["categories"]:
        category["id"] = numbers[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = numbers[annotation["category_id"]]
    path = write_split(tmp_path, "val2017", content)
    arguments = [*settings, f"output={tmp_path / 'run'}"]
    arguments += ["--eval", str(whole[0] / "checkpoints" / "best.pt")]
    found = []
    for data in (root, tmp_path):
        assert train_coco.main([*arguments, f"data.root={data}"]) == 0
        found.append(json.loads((tmp_path / "run" / "evaluation_of_best" / "detections.json").read_text()))
    lines = capsys.readouterr().out.splitlines()
    expected, result = [line for line in lines if line.startswith("{")]
    (warning,) = [line for line in lines if "classes" in line]
    assert json.loads(result) == pytest.approx(json.loads(expected))  # means over categories in another order
    assert f"{path}: classes with other numbers" in warning and "3 ('comb' is 0, there 90" in warning
    ids, own_ids = ([entry["category_id"] for entry in entries] for entries in found)
    assert own_ids == [numbers[identity] for identity in ids]
    content["categories"][0]["name"] = "honeycomb"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"val2017.json: .*best.pt: 1 \('honeycomb'\); missing: 1 \('comb'\)"):
        train_coco.main([*arguments, f"data.root={tmp_path}"])


@pytest.mark.parametrize("activation", ["relu", "swish", "frelu", "pwlu"])
def test_retinanet_with_every_activation(
    activation: str, settings: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("engine.runs.reporting.draw_curves", lambda model, title: None)
    arguments = [*settings, f"output={tmp_path}", f"activation.name={activation}", "steps=2"]
    arguments += ["model.architecture=retinanet", "schedule.milestones_steps=[]", "phase1_epochs=0.3"]
    assert train_coco.main([*arguments, "schedule.warmup_steps=1", "data.empty_images=keep"]) == 0
    entries = records(tmp_path)
    assert all(math.isfinite(entry["loss"]) for entry in entries if entry["kind"] == "train")
    assert any(entry["kind"] == "realign" for entry in entries) == (activation == "pwlu")
    assert "segm_AP" not in entries[-1] and "bbox_AP" in entries[-1]
    assert json.loads((tmp_path / "manifest.json").read_text())["data"]["num_train"] == 18


@pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")
@pytest.mark.parametrize(
    ("architecture", "activation"),
    [("mask_rcnn", "relu"), ("mask_rcnn", "pwlu"), ("retinanet", "swish"), ("retinanet", "frelu"),
     ("retinanet", "pwlu")],
)  # fmt: skip
def test_detectron2_trains_resumes_and_evaluates(
    architecture: str, activation: str, settings: list[str], tmp_path: Path
) -> None:
    arguments = [*settings, "model.library=detectron2", f"model.architecture={architecture}"]
    arguments += [f"activation.name={activation}", "steps=4", "schedule.milestones_steps=[3]"]
    arguments += ["phase1_epochs=0.6", "runtime.checkpoint_every_steps=1", "runtime.eval_every_steps=3"]
    folders = [tmp_path / name for name in ("whole", "killed")]
    fault = partial(fault_injection.die_in_step, victim=0, step=3)
    outcome = run(tmp_path / "logs", [*arguments, f"output={folders[1]}"], processes=2, fault=fault)
    assert sorted(outcome.statuses) == [KILLED, 1], outcome.output
    for folder in folders:
        outcome = run(tmp_path / "logs", [*arguments, f"output={folder}"], processes=2)
        assert outcome.statuses == [0, 0], outcome.output
    assert "resuming at step 2" in outcome.outputs[0]
    assert_same_bits(weights(folders[1]), weights(folders[0]))
    assert records(folders[1]) == records(folders[0])
    detector = json.loads((folders[0] / "manifest.json").read_text())["starts"][0]["detector"]
    assert detector["name"] == "detectron2" and detector["version"]
    last = str(folders[0] / "checkpoints" / "last.pt")
    outcome = run(tmp_path / "logs", [*arguments, f"output={folders[0]}", "--eval", last])
    found = json.loads(outcome.outputs[0].splitlines()[-1])
    recorded = records(folders[0])[-1]
    scores = {name: value for name, value in recorded.items() if "_A" in name}
    assert scores and {name: found[name] for name in scores} == scores


def test_a_broken_image_is_named_by_file_and_id(settings: list[str], tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    for picture in sorted((root / "train2017").iterdir()):
        picture.write_bytes(b"not a picture")
    arguments = [*settings, f"data.root={root}", f"output={tmp_path / 'run'}", "data.workers=1"]
    outcome = run(tmp_path / "logs", arguments)
    assert outcome.statuses == [1]
    error = outcome.outputs[0].splitlines()[-1]
    assert "cannot decode" in error and f"{root}/train2017/" in error
    assert re.search(r"\(image \d+ of instances_train2017.json\)", error)


def test_impossible_settings_are_explained(settings: list[str]) -> None:
    for override, sentence in [
        ("phase1_epochs=5", "phase1_epochs=5 are 15 steps of 4 of the 12 training images, more than steps=8"),
        ("schedule.milestones_steps=[5,9]", r"milestones_steps=\[5, 9\] does not end before steps=8"),
        ("schedule.milestones_steps=[5,4]", r"expected rising numbers greater than 0, got \[5, 4\]"),
        ("schedule.milestones_steps=5", "expected whole numbers, such as"),
        ("schedule.warmup_steps=8", "leaves nothing of steps=8"),
        ("data.longer_side_px=40", "data.shorter_side_px=48 exceeds data.longer_side_px=40"),
        ("model.library=detectron3", "did you mean 'detectron2'"),
        ("model.backbone=resnet51", "resnet51"),
    ]:
        with pytest.raises((ConfigError, ValueError), match=sentence):
            train_coco.main([*settings, override])


def _keep_first_images(path: Path, number: int) -> None:
    """Cut a COCO file down to its first images that have objects."""
    content = json.loads(path.read_text())
    annotated = {annotation["image_id"] for annotation in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in annotated][:number]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    path.write_text(json.dumps(content))


@needs_photographs
def test_photographs_through_both_phases(tmp_path: Path) -> None:
    """The paper's Mask R-CNN on COCO photographs, with its configuration and only its sizes cut down."""
    images = unpack("coco_gpu.tar", tmp_path / "images")
    (root,) = {path.parent for path in images.rglob("annotations")}
    _keep_first_images(root / "annotations" / "instances_val2017.json", 4)
    arguments = ["--config", str(REPOSITORY / "configs" / "mask_rcnn_r50_pwlu.yaml"), f"data.root={root}"]
    arguments += ["data.train_split=val2017", "data.val_split=val2017", "steps=2", "phase1_epochs=0.5"]
    arguments += ["global_batch_size=2", "data.shorter_side_px=64", "data.longer_side_px=96"]
    arguments += ["schedule.warmup_steps=1", "schedule.milestones_steps=[]", "model.region_samples=32"]
    outcome = run(
        tmp_path / "logs", [*arguments, f"output={tmp_path / 'run'}", "data.workers=0"], processes=2
    )
    assert outcome.statuses == [0, 0], outcome.output
    assert "replaced 60 of 61 sites" in outcome.outputs[0]
    assert [entry["kind"] for entry in records(tmp_path / "run")] == ["realign", "train", "eval"]
    model = torch.load(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    assert len([name for name in model if name.endswith(".points")]) == 60
