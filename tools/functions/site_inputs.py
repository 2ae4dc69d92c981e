"""What flows into the PWLUs of a trained network: its images once more through it, as its evaluation does.

A classifier sees batches, a detector one image at a time. All calls of a layer count: a layer of a detector's
proposal head, or of RetinaNet's heads, is called on every level of the pyramid, one of the box and mask heads
on as many regions as were proposed or found.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.amp import Precision
from engine.config.load import experiment_of, load_config
from engine.processes import distributed
from engine.records.console import say
from engine.records.curves import pwlu_layers
from engine.tasks.classification import Classification
from engine.tasks.detection import Detection
from engine.training.checkpoint import load_weights
from pwlu import PWLU
from tools.functions.images import CLASSIFIER, DETECTOR, EvaluationImages
from tools.functions.trained import Trained, pwlu_layers_of

SECONDS_BETWEEN_LINES = 5.0
Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Network:
    """A trained classifier or detector, in evaluation mode when opened, images to show it, and its task."""

    label: str
    model: nn.Module
    layers: dict[str, PWLU]
    images: EvaluationImages
    data: dict[str, Any]  # split, and how many images there are of each
    task: Classification | Detection

    @property
    def precision(self) -> Precision:
        """The arithmetic of the run."""
        return self.task.precision

    def describe(self) -> dict[str, Any]:
        """Return, for a record, which images were seen and in what arithmetic, as plain values."""
        return {
            **self.data,
            "images": self.images.count - self.images.broken,
            "broken_images_left_out": self.images.broken,
            "device": self.precision.device.type,
            "arithmetic": "float32" if self.precision.mode == "off" else self.precision.mode,
        }

    @torch.no_grad()
    def watch(self, observe: Observer, names: Sequence[str], title: str) -> list[str]:
        """Send all images through the network once, printing progress; return which layers had any input.

        `observe` gets the inputs of the PWLUs `names`, float32 (functions, elements): a row per function,
        that is per channel, or one row of all channels for a layer-wise PWLU; elements > 0. Layers without
        any input, such as those of a mask head where nothing was detected, are named in a printed sentence.

        Raises:
            ValueError: an image that cannot be read, or none that can; what `observe` raises, with the
                layer's name.
        """
        shown, began, spoken = 0, time.monotonic(), 0.0
        reached: set[str] = set()
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with _observed(self.label, self.layers, names, observe, reached), deterministic:
            for call in self.images.calls(self.precision.device):
                with self.precision.autocast():
                    self.model(*call.arguments, **call.options)
                shown += call.images
                seconds = time.monotonic() - began
                if shown == self.images.count or seconds - spoken > SECONDS_BETWEEN_LINES:
                    say(f"{self.label}: {title}: {shown}/{self.images.count} images, {seconds:.0f} s")
                    spoken = seconds
        if not shown:
            raise ValueError(f"{self.label}: none of the {self.images.count} images can be decoded")
        self._name_the_others(names, reached)
        return [name for name in names if name in reached]

    def _name_the_others(self, names: Sequence[str], reached: set[str]) -> None:
        missed = [name for name in names if name not in reached]
        if missed:
            say(
                f"{self.label}: {len(missed)} of {len(names)} PWLUs had no input from these images (a mask "
                f"head has some only where something was detected): {', '.join(missed)}"
            )


def open_network(
    trained: Trained, *, split: str, images: int | None, overrides: Sequence[str] = ()
) -> Network:
    """Build a run's network from its `config.yaml`, load the weights and open its images.

    Network and images come from `build` of the program that trained it.

    Args:
        split: "val", or "train" for the training images as evaluation sees them, without augmentation.
        images: at most so many, evenly spread over the split; None for all.
        overrides: `key=value` words laid over the configuration, for what may differ on this machine.

    Raises:
        ValueError: no configuration, another network or other data than in training, or no PWLU in it.
    """
    if images is not None and images < 2:
        raise ValueError(f"--images is {images}, expected 2 or more")
    pwlu_layers_of(trained)  # to say first if there is none
    program = DETECTOR if trained.is_detector else CLASSIFIER
    config = load_config(trained.folder.config, overrides, program.schema)
    network, saved = experiment_of(config).network, trained.content["experiment"]
    _refuse_another(trained.path, saved, network)
    task, model, _ = program.build(config, distributed.start(config.runtime.device))
    shown, facts = program.images(task, split, images), trained.content["data"]
    _refuse_another(trained.path, facts, shown.facts)
    load_weights(model, trained.weights)
    return Network(
        trained.label,
        model.eval(),
        pwlu_layers(model),
        shown,
        {"split": split, **facts},
        task,
    )


def _refuse_another(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError for a network or images that are not those of the run."""
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
