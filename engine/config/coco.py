"""The configuration of `train_coco.py`: see engine.config.schema."""

from dataclasses import dataclass
from typing import Literal

from engine.bounds import PositiveInt
from engine.config.schema import Conflict, RunConfig, RuntimeConfig, Schema, common_conflicts
from engine.data.options import CocoOptions
from engine.training.schedule import StepDecayOptions


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Which detector. Its other numbers (anchors, samples, thresholds): models/detection/recipe.py."""

    architecture: Literal["mask_rcnn", "retinanet"]  # the detector
    library: Literal["torchvision", "detectron2"] = "torchvision"  # whose heads, losses and post-processing
    backbone: str = "resnet50"  # timm's name of a ResNet
    pretrained: bool = False  # start from timm's trained weights of the backbone
    pyramid_channels: PositiveInt = 256  # width of the feature pyramid and of the convolutions in the heads
    smallest_anchor_px: PositiveInt = 32  # side of the finest level's anchors; it doubles with each level
    region_samples: PositiveInt = 512  # Mask R-CNN's sampled proposals per image for the box loss
    replace_all: bool = False  # the two ReLUs with tiny inputs too: before the last linear layer, at P6


@dataclass(frozen=True, kw_only=True)
class DetectorRuntimeConfig(RuntimeConfig):
    """How the run is executed and how often it reports."""

    device_batch_size: PositiveInt = 2
    checkpoint_every_steps: PositiveInt = 1000
    eval_every_steps: PositiveInt = 10_000  # evaluate on all validation images
    plot_every_steps: PositiveInt = 10_000  # draw the learned functions
    scorer: Literal["pycocotools", "faster-coco-eval"] = "pycocotools"  # what computes AP; the same numbers


@dataclass(frozen=True, kw_only=True)
class CocoConfig(RunConfig):
    """One training run of a detector."""

    steps: PositiveInt  # optimizer steps: the paper's iterations
    global_batch_size: PositiveInt = 16
    model: DetectorConfig
    data: CocoOptions
    schedule: StepDecayOptions
    runtime: DetectorRuntimeConfig


def _conflicts(config: CocoConfig) -> list[Conflict]:
    milestones, warmup_steps = config.schedule.milestones_steps, config.schedule.warmup_steps
    conflicts, key = common_conflicts(config), "schedule.milestones_steps"
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
    return conflicts


COCO = Schema(CocoConfig, _conflicts, renamed={"model.engine": "model.library"})
