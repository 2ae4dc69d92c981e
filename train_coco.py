"""Train or evaluate Mask R-CNN or RetinaNet with PWLU or another activation (the paper's section 4.2).

    python train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml data.root=/datasets/coco
    torchrun --nproc-per-node 8 train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml
    python train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml \\
        --eval runs/mask_rcnn_r50_pwlu/checkpoints/best.pt

To resume a run, give the same command again.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from operator import methodcaller

import torch
from torch import nn

from engine.amp import Precision
from engine.config.load import COCO, CocoConfig, ConfigError, experiment_of
from engine.data.classes import Classes
from engine.data.coco import build_coco_data
from engine.processes.distributed import World
from engine.processes.program import exit_with
from engine.runs.main import train_or_evaluate
from engine.runs.manifest import describe_package
from engine.runs.run import Run
from engine.tasks.detection import Detection
from engine.training.fusing import fuse
from engine.training.loop import Plan
from engine.training.origin import Origin
from engine.training.schedule import step_decay, whole_steps
from engine.training.starting_weights import StartingWeights
from engine.training.state import new_state
from engine.training.trained_network import Networks
from models import activation_factory, is_activation, is_synchronized, synchronize_batch_norm
from models.detection import PROBE_SIZE, DetectorRecipe, build_detector, replace_sites, stages_of


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or evaluate a checkpoint; return the exit status."""
    return train_or_evaluate(__doc__, argv, COCO, build, train)


def train(config: CocoConfig, run: Run, task: Detection, model: nn.Module, origin: Origin) -> bool:
    """Train from the run's last checkpoint, if it has one; return False if a signal stopped it."""
    phase1_steps = whole_steps(config.phase1_epochs, task.data.num_train / config.global_batch_size)
    if phase1_steps > config.steps:
        raise ConfigError(
            f"phase1_epochs={config.phase1_epochs:g} are {phase1_steps} steps of {config.global_batch_size} "
            f"of the {task.data.num_train} training images, more than steps={config.steps}; give fewer"
        )
    plan = Plan(
        total_steps=config.steps,
        steps_per_epoch=task.data.steps_per_epoch(config.global_batch_size),
        images_per_step=config.global_batch_size,
        log_every_steps=config.runtime.log_every_steps,
        checkpoint_every_steps=config.runtime.checkpoint_every_steps,
        eval_every_steps=config.runtime.eval_every_steps,
        plot_every_steps=config.runtime.plot_every_steps,
    )
    state = new_state(
        model, task.precision, config.optimizer, is_activation=is_activation, phase1_steps=phase1_steps
    )
    learning_rate = functools.partial(
        step_decay, options=config.schedule, peak_lr=config.optimizer.peak_lr, total_steps=config.steps
    )
    return run.train(
        task,
        state,
        plan,
        learning_rate,
        options=config.optimizer,
        seed=config.seed,
        origin=origin,
        components=lambda: {"detector": describe_package(config.model.library)},
    )


def build(
    config: CocoConfig,
    world: World,
    trained: Classes | None = None,
    start: StartingWeights | None = None,
) -> tuple[Detection, nn.Module, Origin]:
    """Open the images and build the detector with its activations: the same on every process.

    `trained` are the classes of a detector whose weights will be loaded; None for one that is to be trained,
    from the weights `start` if there are any.
    """
    with_masks = config.model.architecture == "mask_rcnn"
    data = build_coco_data(config.data, with_masks=with_masks, seed=config.seed, trained=trained)
    task = Detection(
        data=data,
        world=world,
        precision=Precision(config.runtime.amp, world.device),
        global_batch_size=config.global_batch_size,
        device_batch_size=config.runtime.device_batch_size,
        scorer=config.runtime.scorer,
    )
    torch.manual_seed(config.seed)
    networks = Networks(
        build=functools.partial(
            build_detector,
            config.model.architecture,
            config.model.library,
            backbone=config.model.backbone,
            recipe=DetectorRecipe(
                pyramid_channels=config.model.pyramid_channels,
                smallest_anchor_px=config.model.smallest_anchor_px,
                region_samples=config.model.region_samples,
            ),
            replace_all=config.model.replace_all,
        ),
        put=functools.partial(replace_sites, replace_all=config.model.replace_all),
        factory=activation_factory,
        activation=asdict(config.activation),
        num_classes=data.classes.count,
        root=methodcaller("probe"),
        backbone=stages_of,
    )
    pretrained = config.model.pretrained and trained is None
    model, origin = networks.begin(start, experiment_of(config), data.classes, pretrained=pretrained)
    model = synchronize_batch_norm(model, world.device).to(world.device)
    if config.runtime.fuse_batch_norm:
        origin = replace(origin, fused=fuse(networks.root(model), PROBE_SIZE, is_synchronized))
    return task, model, origin


if __name__ == "__main__":
    exit_with(main)
