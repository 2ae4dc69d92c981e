"""Train or evaluate an image classifier with PWLU or another activation (the paper's section 4.1).

    python train_imagenet.py --config configs/r18_pwlu.yaml data.root=/datasets/imagenet
    torchrun --nproc-per-node 8 train_imagenet.py --config configs/r18_pwlu.yaml
    python train_imagenet.py --config configs/r18_pwlu.yaml --eval runs/r18_pwlu/checkpoints/best.pt

To resume a run, give the same command again.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from engine.amp import Precision
from engine.config.load import (
    IMAGENET,
    ConfigError,
    ImageNetConfig,
    config_hash,
    config_to_dict,
    experiment_values,
    load_config,
    network_values,
)
from engine.data import build_data
from engine.processes.command_line import parse_arguments
from engine.processes.distributed import World
from engine.processes.launch import EXIT_STOPPED, launch
from engine.processes.preemption import StopRequest
from engine.processes.program import run
from engine.runs.folder import Identity, RunFolder
from engine.runs.run import evaluate_checkpoint, is_finished, run_training
from engine.tasks.classification import Classification
from engine.training.checkpoint import CheckpointError
from engine.training.loop import Plan, TrainingDiverged
from engine.training.schedule import one_cycle_cosine, whole_steps
from engine.training.state import new_state
from models import activation_factory, build_classifier, is_activation
from pwlu import ReplacementReport


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    arguments = parse_arguments(__doc__, argv)
    config = load_config(arguments.config, arguments.overrides, IMAGENET)
    return run(
        config.runtime.device,
        arguments.checkpoint,
        train=functools.partial(train, config),
        evaluate=functools.partial(evaluate, config),
    )


def train(config: ImageNetConfig, world: World, stop: StopRequest) -> int:
    """Train in the run folder, from its last checkpoint if it has one."""
    folder, experiment = RunFolder(config.output), experiment_values(config)
    if is_finished(folder, experiment, world):
        return 0
    task, model, report = build(config, world)
    steps_per_epoch = task.data.steps_per_epoch(config.global_batch_size)
    total_steps = config.epochs * steps_per_epoch
    options, schedule, runtime = (
        asdict(section) for section in (config.optimizer, config.schedule, config.runtime)
    )
    intervals = {key: value for key, value in runtime.items() if key.endswith("_every_steps")}
    peak_lr, clip_grad_norm = options.pop("peak_lr"), options.pop("clip_grad_norm")
    options.pop("label_smoothing")  # the task has it
    finished = run_training(
        folder=folder,
        identity=Identity(config_to_dict(config), experiment, config_hash(config), task.facts()),
        plan=Plan(
            total_steps,
            steps_per_epoch,
            config.global_batch_size,
            **intervals,
            eval_every_steps=config.runtime.eval_every_epochs * steps_per_epoch,
            plot_every_steps=config.runtime.plot_every_epochs * steps_per_epoch,
        ),
        task=task,
        state=new_state(
            model,
            task.precision,
            is_activation=is_activation,
            phase1_steps=whole_steps(config.phase1_epochs, steps_per_epoch),
            **options,
        ),
        learning_rate=functools.partial(
            one_cycle_cosine,
            total_steps=total_steps,
            warmup_steps=whole_steps(schedule.pop("warmup_epochs"), steps_per_epoch),
            peak_lr=peak_lr,
            **schedule,
        ),
        clip_grad_norm=clip_grad_norm,
        seed=config.seed,
        world=world,
        stop=stop,
        announcement=f"{report}\n{task.describe()}",
    )
    return 0 if finished else EXIT_STOPPED


def evaluate(config: ImageNetConfig, world: World, stop: StopRequest, checkpoint: Path) -> int:
    """Print the checkpoint's accuracy on the validation images as a line of JSON."""
    task, model, _ = build(config, world)
    result = evaluate_checkpoint(
        checkpoint,
        network=network_values(config),
        task=task,
        model=model,
        world=world,
        stop=stop,
        folder=RunFolder(config.output),
    )
    return 0 if result else EXIT_STOPPED


def build(config: ImageNetConfig, world: World) -> tuple[Classification, nn.Module, ReplacementReport]:
    """Open the images and build the network with its activations: the same on every process."""
    data, size = build_data(config.data, config.seed), config.data.image_size_px
    task = Classification(
        data=data,
        world=world,
        precision=Precision(config.runtime.amp, world.device),
        global_batch_size=config.global_batch_size,
        device_batch_size=config.runtime.device_batch_size,
        label_smoothing=config.optimizer.label_smoothing,
    )
    torch.manual_seed(config.seed)
    make = activation_factory(**asdict(config.activation))
    model, report = build_classifier(
        config.model.name, make, num_classes=data.num_classes, input_size=(3, size, size)
    )
    layout = torch.channels_last if config.runtime.channels_last else torch.preserve_format
    model.to(world.device).to(memory_format=layout)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    if config.runtime.compile:
        model.compile()  # in place: names of parameters and checkpoints stay the same
    return task, model, report


def program() -> NoReturn:
    """Run `main` and leave with its exit status, or with an error a person can read."""
    launch(main, expected=(ConfigError, CheckpointError, TrainingDiverged))


if __name__ == "__main__":
    program()
