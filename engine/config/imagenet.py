"""The configuration of `train_imagenet.py`: see engine.config.schema."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from engine.config.schema import (
    BELOW_ONE,
    FROM_ZERO_TO_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARED_BOUNDS,
    SHARED_CHOICES,
    UP_TO_ONE,
    ActivationConfig,
    Conflict,
    Schema,
    SgdConfig,
    optimizer_conflicts,
)
from engine.data.options import ImageOptions


@dataclass
class ModelConfig:
    """Which network."""

    name: str = MISSING  # timm's name: resnet18, mobilenetv2_100 ...


@dataclass
class OptimizerConfig(SgdConfig):
    """SGD, and the loss's label smoothing."""

    label_smoothing: float = 0.0


@dataclass
class ScheduleConfig:
    """One-cycle cosine: up from start to peak during the warm-up, down to the end value for the rest."""

    warmup_epochs: float = MISSING
    start_lr_ratio: float = 0.04  # first learning rate / peak_lr
    final_lr_ratio: float = 4e-6  # last learning rate / peak_lr


@dataclass
class RuntimeConfig:
    """How the run is executed and how often it speaks; none of it is part of the experiment but `amp`."""

    device: str = "auto"  # auto | cpu | cuda
    amp: str = "off"  # off | bf16 | fp16
    channels_last: bool = False
    compile: bool = False
    device_batch_size: int = 64  # most images per device and forward; accumulation is derived from it
    log_every_steps: int = 50
    checkpoint_every_steps: int = 500
    eval_every_epochs: int = 1
    plot_every_epochs: int = 5


@dataclass
class ImageNetConfig:
    """One training run of a classifier."""

    output: str = ""  # run folder; runs/<name of the YAML file> unless given
    seed: int = 0
    epochs: int = MISSING
    phase1_epochs: float = 5.0  # T', the length of phase I; 0 = no phase I: fix-init of Tables 5 and 6
    global_batch_size: int = 1024  # images per optimizer step over all devices
    model: ModelConfig = field(default_factory=ModelConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    data: ImageOptions = field(default_factory=ImageOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


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
        "data.kind": ("imagefolder", "webdataset", "digits"),
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
