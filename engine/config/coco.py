"""The configuration of `train_coco.py`: see engine.config.schema."""

from dataclasses import dataclass

from engine.config.schema import (
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
from engine.data.options import CocoOptions
from engine.training.schedule import StepDecayOptions


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Which detector. Its other numbers (anchors, samples, thresholds): models/detection/recipe.py."""

    architecture: str  # mask_rcnn | retinanet
    library: str = "torchvision"  # torchvision | detectron2: whose heads, losses and post-processing
    backbone: str = "resnet50"  # timm's name of a ResNet
    pyramid_channels: int = 256  # width of the feature pyramid and of the convolutions in the heads
    smallest_anchor_px: int = 32  # side of the anchors of the pyramid's finest level; it doubles with each
    region_samples: int = 512  # Mask R-CNN's proposals per image that the box loss is taken of
    replace_all: bool = False  # the two ReLUs with tiny inputs too: before the last linear layer, at P6


@dataclass(frozen=True, kw_only=True)
class DetectorRuntimeConfig(RuntimeConfig):
    """How the run is executed and how often it reports; none of it is part of the experiment but `amp`."""

    device_batch_size: int = 2
    checkpoint_every_steps: int = 1000
    eval_every_steps: int = 10_000
    plot_every_steps: int = 10_000
    scorer: str = "pycocotools"  # pycocotools | faster-coco-eval: the same numbers


@dataclass(frozen=True, kw_only=True)
class CocoConfig(RunConfig):
    """One training run of a detector."""

    steps: int  # optimizer steps: the paper's iterations
    global_batch_size: int = 16
    model: DetectorConfig
    data: CocoOptions
    schedule: StepDecayOptions
    runtime: DetectorRuntimeConfig


def _conflicts(config: CocoConfig) -> list[Conflict]:
    milestones, warmup_steps = config.schedule.milestones_steps, config.schedule.warmup_steps
    key = "schedule.milestones_steps"
    conflicts: list[Conflict] = []
    if milestones != sorted(set(milestones)) or any(step <= 0 for step in milestones):
        sentence = f"{key}: expected rising numbers greater than 0, got {milestones}"
        conflicts.append(((key, key), sentence))
    elif milestones and milestones[-1] >= config.steps:
        sentence = f"{key}={milestones} does not end before steps={config.steps}; give earlier milestones"
        conflicts.append(((key, "steps"), sentence + " as well"))
    if warmup_steps >= config.steps:
        sentence = f"schedule.warmup_steps={warmup_steps} leaves nothing of steps={config.steps}"
        conflicts.append((("schedule.warmup_steps", "steps"), sentence + "; give a shorter warm-up as well"))
    if config.data.shorter_side_px > config.data.longer_side_px:
        keys = ("data.shorter_side_px", "data.longer_side_px")
        sides = config.data.shorter_side_px, config.data.longer_side_px
        conflicts.append((keys, f"{keys[0]}={sides[0]} exceeds {keys[1]}={sides[1]}"))
    return conflicts + optimizer_conflicts(config.optimizer)


COCO = Schema(
    kind=CocoConfig,
    choices={
        **SHARED_CHOICES,
        "model.architecture": ("mask_rcnn", "retinanet"),
        "model.library": ("torchvision", "detectron2"),
        "data.kind": ("coco", "digits"),
        "data.empty_images": ("drop", "keep"),
        "runtime.scorer": ("pycocotools", "faster-coco-eval"),
    },
    bounds={
        **SHARED_BOUNDS,
        "steps": POSITIVE,
        "model.pyramid_channels": POSITIVE,
        "model.smallest_anchor_px": POSITIVE,
        "model.region_samples": POSITIVE,
        "data.shorter_side_px": POSITIVE,
        "data.longer_side_px": POSITIVE,
        "schedule.warmup_steps": NOT_NEGATIVE,
        "schedule.start_lr_ratio": UP_TO_ONE,
        "schedule.decay_factor": UP_TO_ONE,
        "runtime.eval_every_steps": POSITIVE,
        "runtime.plot_every_steps": POSITIVE,
    },
    conflicts=_conflicts,
    renamed={"model.engine": "model.library"},
)
