"""Every file of configs/ loads, is the paper's where the paper speaks, and says what it is in its head."""

from pathlib import Path

import pytest
import torch

from engine.config.load import IMAGENET, ImageNetConfig, experiment_of, load_config
from engine.config.schema import ACTIVATION_NAMES
from models import ACTIVATIONS, activation_factory, build_classifier

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "configs").glob("*.yaml")
    if "train_imagenet.py" in path.read_text()
)

# Section 4.1: timm's name, epochs, weight decay, augmentation.
RECIPES = {
    "r18": ("resnet18", 100, 1e-4, "standard"),
    "r50": ("resnet50", 100, 1e-4, "standard"),
    "mbv2": ("mobilenetv2_100", 200, 4e-5, "standard"),
    "mbv3": ("mobilenetv3_small_100", 350, 4e-5, "standard"),
    "effb0": ("efficientnet_b0", 350, 1e-5, "autoaugment"),
}
# Table 2, in the order of ACTIVATION_NAMES.
TOP1 = {
    "r18": (71.34, 71.61, 71.30, 71.03, 71.80, 71.82, 72.57),
    "r50": (76.90, 77.25, 77.09, 76.43, 76.58, 77.49, 77.78),
    "mbv2": (72.84, 73.68, 73.69, 73.89, 74.56, 74.85, 74.69),
    "mbv3": (67.74, 67.93, 67.81, 67.68, 68.55, 68.48, 69.65),
    "effb0": (76.45, 77.05, 77.10, 77.28, 78.08, 77.28, 78.22),
}
TABLE_2 = [(network, activation) for network in RECIPES for activation in ACTIVATION_NAMES]
NAMES = {
    "relu": "ReLU",
    "swish": "Swish",
    "prelu": "PReLU",
    "apl": "APL",
    "pau": "PAU",
    "frelu": "F-ReLU",
    "pwlu": "PWLU",
}


def load(file: str) -> ImageNetConfig:
    return load_config(ROOT / file, [], IMAGENET)


def head_of(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [line for line in lines if line.startswith("#")]


def test_the_names_of_activations_are_those_of_the_models() -> None:
    assert ACTIVATION_NAMES == tuple(ACTIVATIONS)


def test_every_file_belongs_to_one_of_the_trainers() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        text = path.read_text()
        assert ("train_imagenet.py" in text) + ("train_coco.py" in text) == 1, path


def test_table_2_is_complete() -> None:
    expected = {f"configs/{network}_{activation}.yaml" for network, activation in TABLE_2}
    assert expected == {file for file in FILES if file.split("/")[1].split("_")[0] in RECIPES}
    assert len(expected) == 35


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_short_and_its_head_holds_its_command(file: str) -> None:
    assert 5 <= len((ROOT / file).read_text().splitlines()) <= 10
    config, head = load(file), head_of(file)
    assert config.output == f"runs/{Path(file).stem}"
    commands = [line for line in head if f"train_imagenet.py --config {file}" in line]
    assert len(commands) == 1 and commands[0].startswith("# torchrun --nproc-per-node ")
    assert any(line.startswith(f"# Cost: {config.epochs} epochs of ") for line in head)


@pytest.mark.parametrize(("network", "activation"), TABLE_2)
def test_table_2_has_the_papers_recipe(network: str, activation: str) -> None:
    file = f"configs/{network}_{activation}.yaml"
    config, head = load(file), head_of(file)
    model, epochs, weight_decay, augmentation = RECIPES[network]
    assert (config.model.name, config.epochs, config.optimizer.weight_decay) == (model, epochs, weight_decay)
    assert (config.data.augmentation, config.data.image_size_px) == (augmentation, 224)
    assert (config.global_batch_size, config.optimizer.momentum, config.phase1_epochs) == (1024, 0.9, 5)
    assert (config.activation.name, config.activation.mode, config.activation.num_intervals) == (
        activation,
        "channel",
        16,
    )
    top1 = TOP1[network][ACTIVATION_NAMES.index(activation)]
    assert "# Table 2, " in head[0] and f"with {NAMES[activation]}: {top1:.2f} % top-1" in head[0]
    assert f"{round(epochs * 1.281167)} M images" in head[1]


@pytest.mark.parametrize("network", RECIPES)
def test_rows_of_table_2_differ_in_the_activation_alone(network: str) -> None:
    rows = [
        experiment_of(load(f"configs/{network}_{activation}.yaml")).settings
        for activation in ACTIVATION_NAMES
    ]
    for row, activation in zip(rows, ACTIVATION_NAMES, strict=True):
        assert row.pop("output") == f"runs/{network}_{activation}"
        assert row["activation"].pop("name") == activation
    assert all(row == rows[0] for row in rows)


def test_switches_default_to_the_papers_recipe() -> None:
    config = load("configs/r18_pwlu.yaml")
    assert (config.runtime.amp, config.runtime.compile, config.runtime.channels_last) == ("off", False, False)
    assert (config.optimizer.ema_decay, config.optimizer.clip_grad_norm, config.optimizer.nesterov) == (
        0,
        0,
        False,
    )
    assert config.optimizer.label_smoothing == 0


@pytest.mark.parametrize("file", FILES)
def test_a_network_can_be_built_from_every_file(file: str) -> None:
    config = load(file)
    size = config.data.image_size_px
    activation = config.activation
    make = activation_factory(
        activation.name, num_intervals=activation.num_intervals, mode=activation.mode, bound=activation.bound
    )
    with torch.device("meta"):
        model, report = build_classifier(config.model.name, make, num_classes=10, input_size=(3, size, size))
        wanted = type(make(4))
    replaced = [model.get_submodule(site.name) for site in report.sites if site.replaced]
    assert len(replaced) >= 10 and all(type(module) is wanted for module in replaced)
