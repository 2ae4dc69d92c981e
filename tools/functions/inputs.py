"""What flows into the PWLUs of a trained network when it is shown images as its evaluation shows them.

A classifier sees batches, a detector one image at a time. All calls of a layer count: those on every level of
the pyramid, and on as many regions as were proposed or found.
"""

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
from engine.amp import Precision
from engine.config.load import COCO, IMAGENET, experiment_of, load_config
from engine.data.coco.dataset import DetectionBatch
from engine.data.loader import BatchLoader, ImageBatch
from engine.processes import distributed
from engine.records.console import say
from engine.records.curves import pwlu_layers, spread
from engine.tasks.classification import Classification
from engine.tasks.detection import Detection
from engine.training.checkpoint import load_weights
from pwlu import PWLU
from tools.functions.trained import Trained, pwlu_layers_of

SECONDS_BETWEEN_LINES = 5.0
Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Images:
    """`count` images of a split in batches, without augmentation.

    `show` gives the network a batch and returns how many images that were. `facts` about the data must be
    those that the run was trained with.
    """

    loader: BatchLoader[Any]
    count: int
    show: Callable[[nn.Module, Any, torch.device], int]
    facts: Mapping[str, int]

    @property
    def broken(self) -> int:
        """How many of the images shown so far were left out, since they cannot be decoded."""
        return len(set(self.loader.skipped))


@dataclass(frozen=True)
class Network:
    """A trained classifier or detector, in evaluation mode when opened, and images to show it."""

    label: str
    model: nn.Module
    layers: dict[str, PWLU]
    images: Images
    split: str
    task: Classification | Detection

    @property
    def precision(self) -> Precision:
        return self.task.precision

    def describe(self) -> dict[str, Any]:
        """Return, for a record, which images were seen and in what arithmetic."""
        return {
            "split": self.split,
            **self.images.facts,
            "images": self.images.count - self.images.broken,
            "broken_images_left_out": self.images.broken,
            "device": self.precision.device.type,
            "arithmetic": "float32" if self.precision.mode == "off" else self.precision.mode,
        }

    @torch.no_grad()
    def watch(self, observe: Observer, names: Sequence[str], title: str) -> list[str]:
        """Send all images through the network, printing progress; return which layers had any input.

        `observe` gets a layer's name and inputs, float32 (functions, elements), elements > 0: a row per
        channel, or a single one for a layer-wise PWLU. Layers without any input are named in a printed line.

        Raises:
            ValueError: an image that cannot be read, or none that can; what `observe` raises, with the
                layer's name.
        """
        shown, began, spoken = 0, time.monotonic(), 0.0
        reached: set[str] = set()
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with _observed(self.label, self.layers, names, observe, reached), deterministic:
            for batch in self.images.loader:
                with self.precision.autocast():
                    shown += self.images.show(self.model, batch, self.precision.device)
                seconds = time.monotonic() - began
                if shown == self.images.count or seconds - spoken > SECONDS_BETWEEN_LINES:
                    say(f"{self.label}: {title}: {shown}/{self.images.count} images, {seconds:.0f} s")
                    spoken = seconds
        if not shown:
            raise ValueError(f"{self.label}: none of the {self.images.count} images can be decoded")
        missed = [name for name in names if name not in reached]
        if missed:
            say(
                f"{self.label}: {len(missed)} of {len(names)} PWLUs had no input from these images (a mask "
                f"head has some only where something was detected): {', '.join(missed)}"
            )
        return [name for name in names if name in reached]


def open_network(
    trained: Trained, *, split: str, images: int | None, overrides: Sequence[str] = ()
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
    build = _build_detector if trained.is_detector else _build_classifier
    task, model, shown = build(trained, overrides, split, images)
    _require_same(trained.path, trained.content["data"], shown.facts)
    load_weights(model, trained.weights)
    return Network(trained.label, model.eval(), pwlu_layers(model), shown, split, task)


def _build_classifier(
    trained: Trained, overrides: Sequence[str], split: str, at_most: int | None
) -> tuple[Classification, nn.Module, Images]:
    config = load_config(trained.folder.config, overrides, IMAGENET)
    _require_same(trained.path, trained.content["experiment"], experiment_of(config).network)
    # Compiling hides the layers' inputs, another memory layout rounds otherwise.
    runtime = dataclasses.replace(config.runtime, compile=False, channels_last=False)
    config = dataclasses.replace(config, runtime=runtime)
    task, model, _ = train_imagenet.build(config, distributed.start(config.runtime.device))
    return task, model, _classifier_images(task, split, at_most)


def _build_detector(
    trained: Trained, overrides: Sequence[str], split: str, at_most: int | None
) -> tuple[Detection, nn.Module, Images]:
    config = load_config(trained.folder.config, overrides, COCO)
    _require_same(trained.path, trained.content["experiment"], experiment_of(config).network)
    task, model, _ = train_coco.build(config, distributed.start(config.runtime.device))
    return task, model, _detector_images(task, split, at_most)


def _require_same(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [
        f"{key} was {saved.get(key)!r}, is now {value!r}"
        for key, value in now.items()
        if value != saved.get(key)
    ]
    if differing:
        raise ValueError(
            f"{path}: this is not what the run was trained with: {', '.join(differing)}; leave out the --set "
            "that changes it, or name the run's own images by --set data.root=..."
        )


def _classifier_images(task: Classification, split: str, at_most: int | None) -> Images:
    data = task.data
    if split == "train":
        data = dataclasses.replace(data, val=data.train)
    chosen, size = spread(data.num_val, at_most or data.num_val), task.device_batch_size
    batches = [chosen[first : first + size] for first in range(0, len(chosen), size)]
    return Images(data.val_loader(batches), len(chosen), _show_classifier, task.facts())


def _detector_images(task: Detection, split: str, at_most: int | None) -> Images:
    """Return up to `at_most` images, evenly spread, one by one: padding changes what is found in them."""
    data, places = task.data, list(range(task.data.num_val))
    facts = {"num_val": data.num_val, "num_categories": len(data.category_ids)}
    if split == "train":  # opened here only: it may be on another machine
        data, places, facts = (
            dataclasses.replace(data, val=data.train),
            data.trained_on.tolist(),
            task.facts(),
        )
    batches = [[places[number]] for number in spread(len(places), at_most or len(places))]
    return Images(data.val_loader(batches), len(batches), _show_detector, facts)


def _show_classifier(model: nn.Module, batch: ImageBatch, device: torch.device) -> int:
    images, _ = batch
    model(images.to(device, non_blocking=True))
    return len(images)


def _show_detector(model: nn.Module, batch: DetectionBatch, device: torch.device) -> int:
    images = [image.to(device, non_blocking=True) for image in batch.images]
    model(images, original_sizes=batch.original_sizes)
    return len(images)


def rows_of(x: Tensor, layer: PWLU) -> Tensor:
    """Return a PWLU's input (N, C, *) as float32 (functions, elements); N may be 0."""
    functions = layer.num_parameters
    rows = x.float() if functions == 1 else x.float().movedim(layer.channel_dim, 0)
    return rows.reshape(functions, x.numel() // functions)


@contextlib.contextmanager
def _observed(
    label: str, layers: dict[str, PWLU], names: Sequence[str], observe: Observer, reached: set[str]
) -> Iterator[None]:
    """Inside the block `observe` sees what goes into the layers; `reached` is given their names."""

    def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = rows_of(inputs[0], layers[name])
        if not rows.numel():  # no region
            return
        reached.add(name)
        try:
            observe(name, rows)
        except ValueError as error:
            raise ValueError(f"{label}: inputs of {name}: {error}") from error

    hooks = [layers[name].register_forward_pre_hook(functools.partial(see, name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
