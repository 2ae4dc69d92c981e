"""The configuration of `train_imagenet.py`: see engine.config.schema."""

from dataclasses import dataclass

from engine.bounds import BelowOne, PositiveInt
from engine.config.schema import Conflict, RunConfig, RuntimeConfig, Schema, common_conflicts
from engine.data import KINDS, ImageOptions
from engine.training.optimizer import OptimizerOptions
from engine.training.schedule import OneCycleOptions
from pwlu.suggestion import expected_one_of


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Which network."""

    name: str  # timm's name: resnet18, mobilenetv2_100 ...
    pretrained: bool = False  # start from timm's trained weights


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimizerConfig(OptimizerOptions):
    """The optimizer's options, and the loss's label smoothing."""

    label_smoothing: BelowOne = 0.0  # share of the target spread over all classes


@dataclass(frozen=True, kw_only=True)
class ClassifierRuntimeConfig(RuntimeConfig):
    """How the run is executed and how often it reports."""

    channels_last: bool = False  # memory layout of the model and the images
    compile: bool = False  # by torch.compile
    device_batch_size: PositiveInt = 64
    checkpoint_every_steps: PositiveInt = 500
    eval_every_epochs: PositiveInt = 1  # evaluate on all validation images
    plot_every_epochs: PositiveInt = 5  # draw the learned functions


@dataclass(frozen=True, kw_only=True)
class ImageNetConfig(RunConfig):
    """One training run of a classifier."""

    epochs: PositiveInt  # passes over the training images
    global_batch_size: PositiveInt = 1024
    model: ClassifierConfig
    data: ImageOptions
    optimizer: ClassifierOptimizerConfig
    schedule: OneCycleOptions
    runtime: ClassifierRuntimeConfig


def _conflicts(config: ImageNetConfig) -> list[Conflict]:
    warmup_epochs, conflicts = config.schedule.warmup_epochs, common_conflicts(config)
    if config.phase1_epochs > config.epochs:
        sentence = f"phase1_epochs={config.phase1_epochs:g} exceeds epochs={config.epochs}"
        conflicts.append((("phase1_epochs", "epochs"), sentence + "; give a smaller phase1_epochs as well"))
    if warmup_epochs >= config.epochs:
        sentence = f"schedule.warmup_epochs={warmup_epochs:g} leaves nothing of epochs={config.epochs}"
        keys = ("schedule.warmup_epochs", "epochs")
        conflicts.append((keys, sentence + "; give a shorter warm-up as well"))
    if config.data.kind not in KINDS:
        conflicts.append((("data.kind", "data.kind"), expected_one_of("data.kind", config.data.kind, KINDS)))
    return conflicts


IMAGENET = Schema(ImageNetConfig, _conflicts)
