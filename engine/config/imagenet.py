"""The configuration of `train_imagenet.py`: see engine.config.schema."""

from dataclasses import dataclass

from engine.config.schema import (
    BELOW_ONE,
    FROM_ZERO_TO_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARED_BOUNDS,
    SHARED_CHOICES,
    UP_TO_ONE,
    Conflict,
    RunConfig,
    RuntimeConfig,
    Schema,
    optimizer_conflicts,
)
from engine.data import KINDS, ImageOptions
from engine.training.optimizer import OptimizerOptions
from engine.training.schedule import OneCycleOptions


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network."""

    name: str  # timm's name: resnet18, mobilenetv2_100 ...


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimizerConfig(OptimizerOptions):
    """The optimizer's options, and the loss's label smoothing."""

    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClassifierRuntimeConfig(RuntimeConfig):
    """How the run is executed and how often it reports; none of it is part of the experiment but `amp`."""

    channels_last: bool = False
    compile: bool = False
    device_batch_size: int = 64
    checkpoint_every_steps: int = 500
    eval_every_epochs: int = 1
    plot_every_epochs: int = 5


@dataclass(frozen=True, kw_only=True)
class ImageNetConfig(RunConfig):
    """One training run of a classifier."""

    epochs: int
    global_batch_size: int = 1024
    model: ModelConfig
    data: ImageOptions
    optimizer: ClassifierOptimizerConfig
    schedule: OneCycleOptions
    runtime: ClassifierRuntimeConfig


def _conflicts(config: ImageNetConfig) -> list[Conflict]:
    warmup_epochs = config.schedule.warmup_epochs
    conflicts: list[Conflict] = []
    if config.phase1_epochs > config.epochs:
        sentence = f"phase1_epochs={config.phase1_epochs:g} exceeds epochs={config.epochs}"
        conflicts.append((("phase1_epochs", "epochs"), sentence + "; give a smaller phase1_epochs as well"))
    if warmup_epochs >= config.epochs:
        sentence = f"schedule.warmup_epochs={warmup_epochs:g} leaves nothing of epochs={config.epochs}"
        conflicts.append(
            (("schedule.warmup_epochs", "epochs"), sentence + "; give a shorter warm-up as well")
        )
    return conflicts + optimizer_conflicts(config.optimizer)


IMAGENET = Schema(
    kind=ImageNetConfig,
    choices={
        **SHARED_CHOICES,
        "data.kind": tuple(KINDS),
        "data.augmentation": ("standard", "autoaugment", "none"),
        "data.broken_images": ("error", "skip"),
    },
    bounds={
        **SHARED_BOUNDS,
        "epochs": POSITIVE,
        "data.image_size_px": POSITIVE,
        "data.max_train_images": NOT_NEGATIVE,
        "data.max_val_images": NOT_NEGATIVE,
        "data.shrink_px": NOT_NEGATIVE,
        "data.eval_crop_ratio": UP_TO_ONE,
        "optimizer.label_smoothing": BELOW_ONE,
        "schedule.warmup_epochs": NOT_NEGATIVE,
        "schedule.start_lr_ratio": UP_TO_ONE,
        "schedule.final_lr_ratio": FROM_ZERO_TO_ONE,
        "runtime.eval_every_epochs": POSITIVE,
        "runtime.plot_every_epochs": POSITIVE,
    },
    conflicts=_conflicts,
)
