"""What flows into the PWLUs of a trained classifier: its images once more through the network."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine import distributed
from engine.amp import Precision
from engine.checkpoint import load_weights, require_same
from engine.config import IMAGENET, ImageNetConfig, load_config, network_values
from engine.curves import pwlu_layers, spread
from engine.data import ImageData, build_data
from engine.data.loader import BatchLoader, ImageBatch, ValSamples, collate_images
from engine.progress import say
from models import activation_factory, build_classifier
from pwlu import PWLU
from tools.trained import Trained, pwlu_layers_of

SECONDS_BETWEEN_LINES = 5.0
Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Network:
    """A trained classifier in evaluation mode and the images to show it."""

    label: str
    model: nn.Module
    layers: dict[str, PWLU]
    loader: BatchLoader[ImageBatch]
    images: int
    precision: Precision
    data: dict[str, Any]  # split, and how many images there are of each

    def describe(self) -> dict[str, Any]:
        """Return, for a record, which images were seen and in what arithmetic, as plain values."""
        broken = len(set(self.loader.skipped))
        return {
            **self.data,
            "images": self.images - broken,
            "broken_images_left_out": broken,
            "device": self.precision.device.type,
            "arithmetic": "float32" if self.precision.mode == "off" else self.precision.mode,
        }

    @torch.no_grad()
    def watch(self, observe: Observer, names: Sequence[str], title: str) -> None:
        """Send all images through the network once, printing progress.

        `observe` gets the inputs of the PWLUs `names`, float32 (functions, elements): a row per function,
        that is per channel, or one row of all channels for a layer-wise PWLU.

        Raises:
            ValueError: an image that cannot be read; what `observe` raises, with the layer's name.
        """
        device, shown, began, spoken = self.precision.device, 0, time.monotonic(), 0.0
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with _observed(self.label, self.layers, names, observe), deterministic:
            for images, _ in self.loader:
                with self.precision.autocast():
                    self.model(images.to(device, non_blocking=True))
                shown += len(images)
                seconds = time.monotonic() - began
                if shown == self.images or seconds - spoken > SECONDS_BETWEEN_LINES:
                    say(f"{self.label}: {title}: {shown}/{self.images} images, {seconds:.0f} s")
                    spoken = seconds


def open_network(
    trained: Trained, *, split: str, images: int | None, overrides: Sequence[str] = ()
) -> Network:
    """Build a run's network from its `config.yaml`, load the weights and open its images.

    Args:
        split: "val", or "train" for the training images as evaluation sees them, without augmentation.
        images: at most so many, evenly spread over the split; None for all.
        overrides: `key=value` words laid over the configuration, for what may differ on this machine.

    Raises:
        ValueError: a detector, no configuration, other data than in training, or no PWLU in the network.
    """
    if images is not None and images < 2:
        raise ValueError(f"--images is {images}, expected 2 or more")
    if "model.architecture" in trained.content["experiment"]:
        raise ValueError(
            f"{trained.path}: a detector; the inputs of PWLUs can be collected in classifiers only "
            "(tools.plot_pwlu draws a detector's functions with --no-inputs)"
        )
    pwlu_layers_of(trained)  # to say first if there is none
    config = load_config(trained.folder.config, overrides, IMAGENET)
    network, saved = network_values(config), trained.content["experiment"]
    require_same({key: saved.get(key) for key in network}, network, trained.path)
    data = _open_data(config)
    facts = trained.content["data"]
    require_same(facts, {key: getattr(data, key) for key in facts}, trained.path)
    precision = Precision(config.runtime.amp, distributed.start(config.runtime.device).device)
    model = _build(config, data.num_classes)
    load_weights(model, trained.weights)
    model.to(precision.device).eval()
    loader, count = _loader(data, split, images, config)
    return Network(
        trained.label,
        model,
        pwlu_layers(model),
        loader,
        count,
        precision,
        {"split": split, **facts},
    )


def rows_of(x: Tensor, layer: PWLU) -> Tensor:
    """Return a PWLU's input (N, C, *) as float32 (functions, elements)."""
    if layer.num_parameters == 1:
        return x.float().reshape(1, -1)
    return x.float().movedim(layer.channel_dim, 0).reshape(layer.num_parameters, -1)


def _open_data(config: ImageNetConfig) -> ImageData:
    options = asdict(config.data)
    del options["workers"]  # the loader's
    return build_data(**options, seed=config.seed)


def _build(config: ImageNetConfig, num_classes: int) -> nn.Module:
    size = config.data.image_size_px
    make = activation_factory(**asdict(config.activation))
    model, _ = build_classifier(config.model.name, make, num_classes=num_classes, input_size=(3, size, size))
    return model


def _loader(
    data: ImageData, split: str, images: int | None, config: ImageNetConfig
) -> tuple[BatchLoader[ImageBatch], int]:
    """Return batches of the chosen images, and how many images these are."""
    source = {"val": data.val, "train": data.train}[split]
    chosen = spread(len(source), images or len(source))
    size = config.runtime.device_batch_size
    batches = [chosen[first : first + size] for first in range(0, len(chosen), size)]
    samples = ValSamples(source, data.eval_transform)
    loader = BatchLoader(
        samples,
        batches,
        collate=collate_images,
        workers=config.data.workers,
        skip_broken=data.skip_broken,
    )
    return loader, len(chosen)


@contextlib.contextmanager
def _observed(label: str, layers: dict[str, PWLU], names: Sequence[str], observe: Observer) -> Iterator[None]:
    """Inside the block `observe` sees what goes into the layers."""

    def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        try:
            observe(name, rows_of(inputs[0], layers[name]))
        except ValueError as error:
            raise ValueError(f"{label}: inputs of {name}: {error}") from error

    hooks = [layers[name].register_forward_pre_hook(functools.partial(see, name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
