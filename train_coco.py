"""Train or evaluate Mask R-CNN or RetinaNet with PWLU or another activation (the paper's section 4.2).

    python train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml data.root=/datasets/coco
    torchrun --nproc-per-node 8 train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml
    python train_coco.py --config configs/mask_rcnn_r50_pwlu.yaml \\
        --eval runs/mask_rcnn_r50_pwlu/checkpoints/best.pt

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
    COCO,
    CocoConfig,
    ConfigError,
    config_hash,
    config_to_dict,
    experiment_values,
    load_config,
    network_values,
)
from engine.data.coco import build_coco_data
from engine.processes.command_line import parse_arguments
from engine.processes.distributed import World
from engine.processes.launch import EXIT_STOPPED, launch
from engine.processes.preemption import StopRequest
from engine.processes.program import run
from engine.runs.folder import Identity, RunFolder
from engine.runs.manifest import describe_package
from engine.runs.run import evaluate_checkpoint, is_finished, run_training
from engine.tasks.detection import Detection
from engine.training.checkpoint import CheckpointError
from engine.training.loop import Plan, TrainingDiverged
from engine.training.schedule import step_decay, whole_steps
from engine.training.state import new_state
from models import activation_factory, is_activation, synchronize_batch_norm
from models.detection import DetectorRecipe, build_detector
from pwlu import ReplacementReport


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    arguments = parse_arguments(__doc__, argv)
    config = load_config(arguments.config, arguments.overrides, COCO)
    return run(
        config.runtime.device,
        arguments.checkpoint,
        train=functools.partial(train, config),
        evaluate=functools.partial(evaluate, config),
    )


def train(config: CocoConfig, world: World, stop: StopRequest) -> int:
    """Train in the run folder, from its last checkpoint if it has one."""
    folder, experiment = RunFolder(config.output), experiment_values(config)
    if is_finished(folder, experiment, world):
        return 0
    task, model, report = build(config, world)
    phase1_steps = whole_steps(config.phase1_epochs, task.data.num_train / config.global_batch_size)
    if phase1_steps > config.steps:
        raise ConfigError(
            f"phase1_epochs={config.phase1_epochs:g} are {phase1_steps} steps of {config.global_batch_size} "
            f"of the {task.data.num_train} training images, more than steps={config.steps}; give fewer"
        )
    options, runtime = asdict(config.optimizer), asdict(config.runtime)
    intervals = {key: value for key, value in runtime.items() if "_every_" in key}
    peak_lr, clip_grad_norm = options.pop("peak_lr"), options.pop("clip_grad_norm")
    finished = run_training(
        folder=folder,
        identity=Identity(config_to_dict(config), experiment, config_hash(config), task.facts()),
        plan=Plan(
            config.steps,
            task.data.steps_per_epoch(config.global_batch_size),
            config.global_batch_size,
            **intervals,
        ),
        task=task,
        state=new_state(
            model,
            task.precision,
            is_activation=is_activation,
            phase1_steps=phase1_steps,
            **options,
        ),
        learning_rate=functools.partial(
            step_decay, total_steps=config.steps, peak_lr=peak_lr, **asdict(config.schedule)
        ),
        clip_grad_norm=clip_grad_norm,
        seed=config.seed,
        world=world,
        stop=stop,
        announcement=f"{report}\n{task.describe()}",
        components={"detector": describe_package(config.model.engine)},
    )
    return 0 if finished else EXIT_STOPPED


def evaluate(config: CocoConfig, world: World, stop: StopRequest, checkpoint: Path) -> int:
    """Print the checkpoint's scores on the validation images as a line of JSON; keep its detections."""
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


def build(config: CocoConfig, world: World) -> tuple[Detection, nn.Module, ReplacementReport]:
    """Open the images and build the detector with its activations: the same on every process."""
    with_masks = config.model.architecture == "mask_rcnn"
    task = Detection(
        data=build_coco_data(config.data, with_masks=with_masks, seed=config.seed),
        world=world,
        precision=Precision(config.runtime.amp, world.device),
        global_batch_size=config.global_batch_size,
        device_batch_size=config.runtime.device_batch_size,
        scorer=config.runtime.scorer,
    )
    torch.manual_seed(config.seed)
    network = asdict(config.model)
    recipe = DetectorRecipe(
        pyramid_channels=network.pop("pyramid_channels"),
        smallest_anchor_px=network.pop("smallest_anchor_px"),
        box_samples=network.pop("region_samples"),
    )
    network["library"] = network.pop("engine")
    make, num_classes = activation_factory(**asdict(config.activation)), len(task.data.category_ids)
    model, report = build_detector(**network, make=make, num_classes=num_classes, recipe=recipe)
    return task, synchronize_batch_norm(model, world.device).to(world.device), report


def program() -> NoReturn:
    """Run `main` and leave with its exit status, or with an error a person can read."""
    launch(main, expected=(ConfigError, CheckpointError, TrainingDiverged))


if __name__ == "__main__":
    program()
