"""Train or evaluate an image classifier with PWLU or another activation (the paper's section 4.1).

    python train_imagenet.py --config configs/r18_pwlu.yaml data.root=/datasets/imagenet
    torchrun --nproc-per-node 8 train_imagenet.py --config configs/r18_pwlu.yaml
    python train_imagenet.py --config configs/r18_pwlu.yaml --eval runs/r18_pwlu/checkpoints/best.pt

To resume a run, give the same command again.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from engine.amp import Precision
from engine.config.load import IMAGENET, ImageNetConfig, experiment_of
from engine.data import build_data
from engine.data.classes import Classes
from engine.data.device import MEAN, STD
from engine.processes.distributed import World
from engine.processes.program import exit_with
from engine.records.console import warn_on_main
from engine.runs.main import train_or_evaluate
from engine.runs.run import Run
from engine.tasks.classification import Classification
from engine.training.fusing import fuse
from engine.training.loop import Plan
from engine.training.origin import Origin
from engine.training.schedule import one_cycle_cosine, whole_steps
from engine.training.starting_weights import StartingWeights
from engine.training.state import new_state
from engine.training.trained_network import Networks
from models import activation_factory, build_classifier, is_activation, put_activations


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or evaluate a checkpoint; return the exit status."""
    return train_or_evaluate(__doc__, argv, IMAGENET, build, train)


def train(config: ImageNetConfig, run: Run, task: Classification, model: nn.Module, origin: Origin) -> bool:
    """Train from the run's last checkpoint, if it has one; return False if a signal stopped it."""
    steps_per_epoch = task.data.steps_per_epoch(config.global_batch_size)
    plan = Plan(
        total_steps=config.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        images_per_step=config.global_batch_size,
        log_every_steps=config.runtime.log_every_steps,
        checkpoint_every_steps=config.runtime.checkpoint_every_steps,
        eval_every_steps=config.runtime.eval_every_epochs * steps_per_epoch,
        plot_every_steps=config.runtime.plot_every_epochs * steps_per_epoch,
    )
    state = new_state(
        model,
        task.precision,
        config.optimizer,
        is_activation=is_activation,
        phase1_steps=whole_steps(config.phase1_epochs, steps_per_epoch),
    )
    learning_rate = functools.partial(
        one_cycle_cosine,
        options=config.schedule,
        peak_lr=config.optimizer.peak_lr,
        total_steps=plan.total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    return run.train(
        task,
        state,
        plan,
        learning_rate,
        options=config.optimizer,
        seed=config.seed,
        origin=origin,
    )


def build(
    config: ImageNetConfig,
    world: World,
    trained: Classes | None = None,
    start: StartingWeights | None = None,
) -> tuple[Classification, nn.Module, Origin]:
    """Open the images and build the network with its activations: the same on every process.

    `trained` are the classes of a network whose weights will be loaded; None for one that is to be trained,
    from the weights `start` if there are any.
    """
    data = build_data(config.data, config.seed, trained)
    task = Classification(
        data=data,
        world=world,
        precision=Precision(config.runtime.amp, world.device),
        global_batch_size=config.global_batch_size,
        device_batch_size=config.runtime.device_batch_size,
        label_smoothing=config.optimizer.label_smoothing,
        memory_format=torch.channels_last if config.runtime.channels_last else torch.contiguous_format,
    )
    torch.manual_seed(config.seed)
    size = (3, config.data.image_size_px, config.data.image_size_px)
    networks = Networks(
        build=functools.partial(build_classifier, config.model.name, input_size=size),
        put=functools.partial(put_activations, input_size=size),
        factory=activation_factory,
        activation=asdict(config.activation),
        num_classes=data.classes.count,
    )
    pretrained = config.model.pretrained and trained is None
    model, origin = networks.begin(start, experiment_of(config), data.classes, pretrained=pretrained)
    if pretrained:
        _compare_images(model)
    model.to(world.device)
    if config.runtime.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.runtime.fuse_batch_norm:
        origin = replace(origin, fused=fuse(model, size))
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    if config.runtime.compile:
        model.compile()  # in place: names of parameters and checkpoints stay the same
    return task, model, origin


def _compare_images(model: Any) -> None:
    """Warn where timm's weights were trained on images that were normalised otherwise than here."""
    known = {name: tuple(model.pretrained_cfg[name]) for name in ("mean", "std")}
    if known != {"mean": MEAN, "std": STD}:
        warn_on_main(
            f"timm's weights of {model.pretrained_cfg['architecture']} were trained on images normalised by "
            f"mean {known['mean']} and std {known['std']}, here by {MEAN} and {STD}: they need some training"
        )


if __name__ == "__main__":
    exit_with(main)
