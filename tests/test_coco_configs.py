"""The detectors' files of configs/ load, are the paper's where the paper speaks, and say what they are."""

from pathlib import Path

import pytest
import torch

from engine.config.load import COCO, CocoConfig, experiment_of, load_config
from models import activation_factory
from models.detection import build_detector
from tests.test_configs import NAMES

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "configs").glob("*.yaml")
    if "train_coco.py" in path.read_text()
)

# Table 3: box AP and mask AP of Mask R-CNN, box AP of RetinaNet.
TABLE_3 = {
    ("mask_rcnn", "relu"): "39.06 box AP, 35.30 mask AP",
    ("mask_rcnn", "swish"): "40.05 box AP, 36.10 mask AP",
    ("mask_rcnn", "frelu"): "40.25 box AP, 36.90 mask AP",
    ("mask_rcnn", "pwlu"): "40.48 box AP, 37.13 mask AP",
    ("retinanet", "relu"): "37.06 box AP",
    ("retinanet", "swish"): "37.82 box AP",
    ("retinanet", "frelu"): "38.35 box AP",
    ("retinanet", "pwlu"): "38.31 box AP",
}
TITLES = {"mask_rcnn": "Mask R-CNN", "retinanet": "RetinaNet"}


def load(file: str) -> CocoConfig:
    return load_config(ROOT / file, [], COCO)


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_short_and_its_head_holds_its_command_and_cost(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    assert 5 <= len(lines) <= 10
    config = load(file)
    assert config.output == f"runs/{Path(file).stem}"
    assert sum(f"train_coco.py --config {file}" in line for line in lines) == 1
    assert any(
        line.startswith(f"# Cost: {config.steps} steps of {config.global_batch_size} ") for line in lines
    )


@pytest.mark.parametrize(("architecture", "activation"), TABLE_3)
def test_table_3_has_the_papers_recipe(architecture: str, activation: str) -> None:
    file = f"configs/{architecture}_r50_{activation}.yaml"
    config, head = load(file), (ROOT / file).read_text().splitlines()[0]
    aps = TABLE_3[architecture, activation]
    assert head == f"# Table 3, {TITLES[architecture]} with {NAMES[activation]}: {aps} in the paper."
    assert (config.model.architecture, config.activation.name) == (architecture, activation)
    assert (config.model.library, config.model.backbone) == ("torchvision", "resnet50")
    assert (config.steps, config.global_batch_size, config.runtime.device_batch_size) == (270_000, 16, 2)
    optimizer = config.optimizer
    assert (optimizer.peak_lr, optimizer.weight_decay, optimizer.momentum) == (0.02, 1e-4, 0.9)
    # "in the last 60k and the last 20k iterations"
    milestones = config.schedule.milestones_steps
    assert [config.steps - step for step in milestones] == [60_000, 20_000]
    assert config.schedule.decay_factor == 0.1
    assert (config.data.shorter_side_px, config.data.longer_side_px) == (800, 1333)
    assert (config.data.train_split, config.data.val_split) == ("train2017", "val2017")
    assert (config.activation.mode, config.activation.num_intervals, config.phase1_epochs) == (
        "channel",
        16,
        5,
    )


def test_rows_of_table_3_differ_in_detector_and_activation_alone() -> None:
    rows = []
    for architecture, activation in TABLE_3:
        row = experiment_of(load(f"configs/{architecture}_r50_{activation}.yaml")).settings
        assert row.pop("output") == f"runs/{architecture}_r50_{activation}"
        assert row["activation"].pop("name") == activation
        assert row["model"].pop("architecture") == architecture
        rows.append(row)
    assert len(rows) == 8 and all(row == rows[0] for row in rows)


@pytest.mark.parametrize("file", FILES)
def test_a_detector_can_be_built_from_every_file(file: str) -> None:
    config = load(file)
    activation = config.activation
    make = activation_factory(
        activation.name, num_intervals=activation.num_intervals, mode=activation.mode, bound=activation.bound
    )
    with torch.device("meta"):
        _, report = build_detector(
            config.model.architecture,
            config.model.library,
            make,
            num_classes=80,
            backbone=config.model.backbone,
        )
    expected = {("mask_rcnn", "resnet50"): 60, ("retinanet", "resnet50"): 57}
    expected |= {("mask_rcnn", "resnet18"): 28, ("retinanet", "resnet18"): 25}
    replaced = sum(site.replaced for site in report.sites)
    assert replaced == expected[config.model.architecture, config.model.backbone]
