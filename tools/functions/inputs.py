"""What flows into the PWLUs of a trained network when it is shown images as its evaluation shows them.

A classifier sees batches, a detector one image at a time. All calls of a layer count: those on every level of
the pyramid, and on as many regions as were proposed or found.
"""

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import train_coco
import train_imagenet
from engine.config.experiment import saved_value
from engine.config.load import COCO, IMAGENET, experiment_of, load_config
from engine.data.classes import classes_of_checkpoint
from engine.data.loader import BatchLoader
from engine.processes import distributed
from engine.processes.program import errors_told_by
from engine.records.console import say
from engine.records.curves import pwlu_layers, spread
from engine.records.learned_functions import PARAMETERS
from engine.tasks.classification import Classification
from engine.tasks.detection import Detection
from engine.training.checkpoint import load_weights
from pwlu import PWLU, pwlu
from tools.functions.trained import Trained, add_image_options, add_run_options, open_all, pwlu_layers_of
from tools.records import add_record_option

SECONDS_BETWEEN_LINES = 5.0
Observer = Callable[[str, Tensor], None]


# What is fused or compiled has no inputs to see.
_APART = ("runtime.fuse_batch_norm=false",)


@dataclass(frozen=True)
class Network:
    """A trained classifier or detector, in evaluation mode when opened, and `count` images to show it."""

    trained: Trained
    model: nn.Module
    layers: dict[str, PWLU]
    task: Classification | Detection
    split: str
    loader: BatchLoader[Any]  # without augmentation
    count: int

    def describe(self) -> dict[str, Any]:
        """Return, for a record, which images were seen and in what arithmetic."""
        broken, precision = len(set(self.loader.skipped)), self.task.precision
        return {
            "split": self.split,
            **_facts(self.task, self.split),
            "images": self.count - broken,
            "broken_images_left_out": broken,
            "device": precision.device.type,
            "arithmetic": "float32" if precision.mode == "off" else precision.mode,
        }

    def entry(self, layers: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a record with what was found of the layers that had inputs."""
        without = [name for name in self.layers if name not in layers]
        facts = {**self.trained.describe(), "inputs": self.describe()}
        return {**facts, "layers_without_input": without, "layers": layers}

    @torch.no_grad()
    def watch(self, observe: Observer, names: Sequence[str], title: str) -> list[str]:
        """Send all images through the network, printing progress; return which layers had any input.

        `observe` gets a layer's name and inputs, finite float32 (functions, elements), elements > 0: a row
        per channel, or a single one for a layer-wise PWLU. Layers without any input are named in a printed
        line.

        Raises:
            ValueError: an image that cannot be read, or none that can; an input that is NaN or infinite.
        """
        label = self.trained.label
        shown, began, spoken = 0, time.monotonic(), 0.0
        reached: set[str] = set()
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with self._observed(names, observe, reached), deterministic:
            for batch in self.loader:
                self.task.predict(self.model, batch)
                shown += len(batch[0])
                seconds = time.monotonic() - began
                if shown == self.count or seconds - spoken > SECONDS_BETWEEN_LINES:
                    say(f"{label}: {title}: {shown}/{self.count} images, {seconds:.0f} s")
                    spoken = seconds
        if not shown:
            raise ValueError(f"{label}: none of the {self.count} images can be decoded")
        missed = [name for name in names if name not in reached]
        if missed:
            say(
                f"{label}: {len(missed)} of {len(names)} PWLUs had no input from these images (a mask "
                f"head has some only where something was detected): {', '.join(missed)}"
            )
        return [name for name in names if name in reached]

    @contextlib.contextmanager
    def _observed(self, names: Sequence[str], observe: Observer, reached: set[str]) -> Iterator[None]:
        """Inside the block `observe` sees what goes into the layers; `reached` is given their names."""

        def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = rows_of(inputs[0], self.layers[name])
            if not rows.numel():  # no region
                return
            bad = int((~rows.isfinite()).sum())
            if bad:
                of = f"{bad} of {rows.numel()} inputs are NaN or infinite"
                raise ValueError(f"{self.trained.label}: inputs of {name}: {of}")
            reached.add(name)
            observe(name, rows)

        hooks = [self.layers[name].register_forward_pre_hook(functools.partial(see, name)) for name in names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@torch.no_grad()
def apply(layer: PWLU, rows: Tensor) -> Tensor:
    """Return what a layer's functions make of their rows of inputs, of the layer's dtype and device."""
    rows = rows.to(layer.points)
    # Not by the layer itself: hooks would see the call, and its channels may lie elsewhere.
    return pwlu(rows, *(getattr(layer, name) for name in PARAMETERS), channel_dim=0)


def rows_of(x: Tensor, layer: PWLU) -> Tensor:
    """Return a PWLU's input (N, C, *) as float32 (functions, elements); N may be 0."""
    functions = layer.num_parameters
    rows = x.float() if functions == 1 else x.float().movedim(layer.channel_dim, 0)
    return rows.reshape(functions, x.numel() // functions)


def open_network(
    trained: Trained, *, split: str = "val", images: int | None = None, overrides: Sequence[str] = ()
) -> Network:
    """Build a run's network by the program that trained it, load the weights and open its images.

    Args:
        split: "val", or "train" for the training images as evaluation sees them, without augmentation.
        images: at most so many, evenly spread over the split; None for all.
        overrides: `key=value` words laid over the run's configuration, for what may differ on this machine.

    Raises:
        ValueError: no configuration, another network or other data than in training, or no PWLU in it.
    """
    if images is not None and images < 2:
        raise ValueError(f"--images is {images}, expected 2 or more")
    pwlu_layers_of(trained)  # to say first if there is none
    task: Classification | Detection
    classes = classes_of_checkpoint(trained.content, str(trained.path))
    # A run from before there was a choice says nothing of it.
    decoder = saved_value(trained.content["experiment"], "data.decoder")
    words = [f"data.decoder={decoder}", *overrides, *_APART]
    if trained.is_detector:
        detector = load_config(trained.folder.config, words, COCO)
        _require_same(trained.path, trained.content["experiment"], experiment_of(detector).network)
        task, model, _ = train_coco.build(detector, distributed.start(detector.runtime.device), classes)
    else:
        # Another memory layout rounds otherwise.
        words += ["runtime.compile=false", "runtime.channels_last=false"]
        classifier = load_config(trained.folder.config, words, IMAGENET)
        _require_same(trained.path, trained.content["experiment"], experiment_of(classifier).network)
        task, model, _ = train_imagenet.build(
            classifier, distributed.start(classifier.runtime.device), classes
        )
    _require_same(trained.path, trained.content["data"], _facts(task, split))
    loader, count = _images(task, split, images)
    load_weights(model, trained.weights)
    return Network(trained, model.eval(), pwlu_layers(model), task, split, loader, count)


def _require_same(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [
        f"{key} was {saved_value(saved, key)!r}, is now {value!r}"
        for key, value in now.items()
        if value != saved_value(saved, key)
    ]
    if differing:
        raise ValueError(
            f"{path}: this is not what the run was trained with: {', '.join(differing)}; leave out the --set "
            "that changes it, or name the run's own images by --set data.root=..."
        )


def _facts(task: Classification | Detection, split: str) -> dict[str, int]:
    """Return what the data have in numbers; they must be those that the run was trained with."""
    if split == "val":  # the training images may be on another machine
        count = "num_categories" if isinstance(task, Detection) else "num_classes"
        return {"num_val": task.data.num_val, count: task.classes.count}
    return task.facts()


def _images(
    task: Classification | Detection, split: str, at_most: int | None
) -> tuple[BatchLoader[Any], int]:
    """Return up to `at_most` images of a split, evenly spread, and their number."""
    make: Callable[[list[list[int]]], BatchLoader[Any]]
    if isinstance(task, Detection):
        size = 1  # padding changes what is found in an image
        coco = task.data if split == "val" else dataclasses.replace(task.data, val=task.data.train)
        places = list(range(coco.num_val)) if split == "val" else coco.trained_on.tolist()
        make = coco.val_loader
    else:
        size = task.device_batch_size
        data = task.data if split == "val" else dataclasses.replace(task.data, val=task.data.train)
        places, make = list(range(data.num_val)), data.val_loader
    chosen = [places[number] for number in spread(len(places), at_most or len(places))]
    return make([chosen[first : first + size] for first in range(0, len(chosen), size)]), len(chosen)


def examine_all(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    examine: Callable[[Network], dict[str, Any]],
) -> tuple[list[dict[str, Any]], Path]:
    """Return what `examine` makes of every run of a command line, and where the picture goes.

    Leaves with a message to the user where a run cannot be examined.
    """
    add_run_options(parser)
    add_record_option(parser)
    add_image_options(parser)
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        entries = [
            examine(
                open_network(trained, split=arguments.split, images=arguments.images, overrides=arguments.set)
            )
            for trained in open_all(arguments.runs, arguments.labels, arguments.averaged)
        ]
    return entries, arguments.output.with_suffix(".png")
