"""Every file of configs/ loads, can be built, and is the paper's recipe where the paper speaks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from engine.config.experiment import leaves
from engine.config.load import COCO, IMAGENET, CocoConfig, ImageNetConfig, experiment_of, load_config
from engine.config.schema import ACTIVATION_NAMES, ActivationConfig, StartingName
from models import ACTIVATIONS, ORIGINAL, REPLACED, activation_factory, build_classifier
from models.detection import build_detector
from pwlu.starting import STARTS

FOLDER = Path(__file__).parent.parent / "configs"
CLASSIFIERS, DETECTORS = (
    sorted(path.stem for path in FOLDER.glob("*.yaml") if program in path.read_text())
    for program in ("train_imagenet.py", "train_coco.py")
)

# Section 4.1: timm's name, epochs, weight decay, augmentation.
RECIPES = {
    "r18": ("resnet18", 100, 1e-4, "standard"),
    "r50": ("resnet50", 100, 1e-4, "standard"),
    "mbv2": ("mobilenetv2_100", 200, 4e-5, "standard"),
    "mbv3": ("mobilenetv3_small_100", 350, 4e-5, "standard"),
    "effb0": ("efficientnet_b0", 350, 1e-5, "autoaugment"),
}
ACTIVATIONS_OF_TABLE_2 = ("relu", "swish", "prelu", "apl", "pau", "frelu", "pwlu")
TABLE_2 = [(network, activation) for network in RECIPES for activation in ACTIVATIONS_OF_TABLE_2]
TABLE_3 = [
    (architecture, activation)
    for architecture in ("mask_rcnn", "retinanet")
    for activation in ("relu", "swish", "frelu", "pwlu")
]


# Those of the tables are built in tests/models.
OTHER_CLASSIFIERS = sorted(set(CLASSIFIERS) - {f"{network}_{name}" for network, name in TABLE_2})
OTHER_DETECTORS = sorted(set(DETECTORS) - {f"{architecture}_r50_{name}" for architecture, name in TABLE_3})


def classifier(name: str) -> ImageNetConfig:
    return load_config(FOLDER / f"{name}.yaml", [], IMAGENET)


def detector(name: str) -> CocoConfig:
    return load_config(FOLDER / f"{name}.yaml", [], COCO)


def make_of(activation: ActivationConfig) -> Any:
    return activation_factory(**asdict(activation))


def test_every_file_belongs_to_one_of_the_trainers_and_the_tables_are_complete() -> None:
    assert len(CLASSIFIERS) + len(DETECTORS) == len(list(FOLDER.glob("*.yaml")))
    assert {f"{network}_{activation}" for network, activation in TABLE_2} <= set(CLASSIFIERS)
    assert {f"{architecture}_r50_{activation}" for architecture, activation in TABLE_3} <= set(DETECTORS)
    assert ACTIVATION_NAMES == (*ACTIVATIONS, ORIGINAL)
    assert set(get_args(StartingName)) == {*STARTS, REPLACED}


@pytest.mark.parametrize(("network", "activation"), TABLE_2)
def test_table_2_has_the_papers_recipe(network: str, activation: str) -> None:
    config = classifier(f"{network}_{activation}")
    model, epochs, weight_decay, augmentation = RECIPES[network]
    assert (config.model.name, config.epochs, config.optimizer.weight_decay) == (model, epochs, weight_decay)
    assert (config.data.augmentation, config.data.image_size_px) == (augmentation, 224)
    assert (config.global_batch_size, config.optimizer.momentum, config.phase1_epochs) == (1024, 0.9, 5)
    assert config.activation == ActivationConfig(name=activation, mode="channel", num_intervals=16)
    # Not mentioned in the paper: off
    assert (config.runtime.amp, config.runtime.compile, config.runtime.channels_last) == ("off", False, False)
    optimizer = config.optimizer
    assert not any(
        (optimizer.ema_decay, optimizer.clip_grad_norm, optimizer.nesterov, optimizer.label_smoothing)
    )


@pytest.mark.parametrize(("architecture", "activation"), TABLE_3)
def test_table_3_has_the_papers_recipe(architecture: str, activation: str) -> None:
    config = detector(f"{architecture}_r50_{activation}")
    assert (config.model.architecture, config.activation.name) == (architecture, activation)
    assert (config.model.library, config.model.backbone) == ("torchvision", "resnet50")
    assert (config.steps, config.global_batch_size, config.runtime.device_batch_size) == (270_000, 16, 2)
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.peak_lr, optimizer.weight_decay, optimizer.momentum) == (0.02, 1e-4, 0.9)
    # "in the last 60k and the last 20k iterations"
    assert [config.steps - step for step in schedule.milestones_steps] == [60_000, 20_000]
    assert schedule.decay_factor == 0.1
    assert (config.data.shorter_side_px, config.data.longer_side_px) == (800, 1333)
    assert (config.data.train_split, config.data.val_split) == ("train2017", "val2017")
    assert config.activation == ActivationConfig(name=activation, mode="channel", num_intervals=16)
    assert config.phase1_epochs == 5


def test_rows_of_a_table_differ_in_the_activation_alone() -> None:
    groups = [[classifier(f"{network}_{name}") for name in ACTIVATIONS_OF_TABLE_2] for network in RECIPES]
    groups.append([detector(f"{architecture}_r50_{name}") for architecture, name in TABLE_3])
    for rows in groups:
        settings = [leaves(experiment_of(row).settings) for row in rows]
        differing = {key for one in settings for key in one if one[key] != settings[0][key]}
        assert differing - {"model.architecture"} == {"output", "activation.name"}


@pytest.mark.parametrize("name", OTHER_CLASSIFIERS)
def test_a_network_can_be_built_from_every_other_file(name: str) -> None:
    config = classifier(name)
    make, size = make_of(config.activation), config.data.image_size_px
    with torch.device("meta"):
        model, report = build_classifier(config.model.name, make, num_classes=10, input_size=(3, size, size))
        wanted = type(make(4))
    replaced = [model.get_submodule(site.name) for site in report.sites if site.replaced]
    assert len(replaced) >= 10 and all(type(module) is wanted for module in replaced)


@pytest.mark.parametrize("name", OTHER_DETECTORS)
def test_a_detector_can_be_built_from_every_other_file(name: str) -> None:
    config = detector(name)
    model = config.model
    with torch.device("meta"):
        _, report = build_detector(
            model.architecture,
            model.library,
            make_of(config.activation),
            num_classes=80,
            backbone=model.backbone,
        )
    assert sum(site.replaced for site in report.sites) >= 25
