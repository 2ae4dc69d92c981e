"""Network and images of a run, built by the program that trained it, as its evaluation shows them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

import train_coco
import train_imagenet
from engine.config.load import COCO, IMAGENET, ImageNetConfig
from engine.data.coco.dataset import DetectionBatch, DetectionSamples, collate_detection
from engine.data.loader import BatchLoader, ImageBatch, ValSamples, collate_images
from engine.processes.distributed import World
from engine.records.curves import spread
from engine.tasks.classification import Classification
from engine.tasks.detection import Detection


class Call(NamedTuple):
    """One call of a network: what it is given, and how many images that shows it."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]
    images: int


@dataclass(frozen=True)
class EvaluationImages:
    """Some images of a split, without augmentation, in the batches that evaluation uses.

    Attributes:
        loader: hands out the batches.
        count: of the images.
        call: returns what the network is to be called with, on a device, given a batch.
        facts: about the data as they are now, to be compared with those that the run was trained with.
    """

    loader: BatchLoader[Any]
    count: int
    call: Callable[[Any, torch.device], Call]
    facts: dict[str, int]

    @property
    def broken(self) -> int:
        """How many of the images shown so far were left out, since they cannot be decoded."""
        return len(set(self.loader.skipped))

    def calls(self, device: torch.device) -> Iterator[Call]:
        """Yield what the network is to be called with. Raises BrokenImageError unless they are left out."""
        for batch in self.loader:
            yield self.call(batch, device)


@dataclass(frozen=True)
class Program:
    """What has to be known of a training program to have one of its runs again.

    Attributes:
        schema: of the run's configuration, as `load_config` takes it.
        build: returns task, network and report, given configuration and world.
        images: returns the images to show, given the task, the split and how many at most (None: all).
    """

    schema: Any
    build: Callable[[Any, World], tuple[Any, nn.Module, object]]
    images: Callable[[Any, str, int | None], EvaluationImages]


def classifier_images(task: Classification, split: str, at_most: int | None) -> EvaluationImages:
    """Return up to `at_most` images of "val" or "train", evenly spread, in batches of the device's size."""
    data = task.data
    source = {"val": data.val, "train": data.train}[split]
    chosen = spread(len(source), at_most or len(source))
    loader = _loader(
        task,
        ValSamples(source, data.eval_transform),
        chosen,
        batch_size=task.device_batch_size,
        collate=collate_images,
        skip_broken=data.skip_broken,
    )
    return EvaluationImages(loader, len(chosen), _call_of_classifier, task.facts())


def detector_images(task: Detection, split: str, at_most: int | None) -> EvaluationImages:
    """Return up to `at_most` images, evenly spread, one by one: padding would change what is found in them.

    "train" are the images that training takes, resized as the others and never mirrored. The training split
    is opened for them only, as it is for training only: it may be on another machine.
    """
    data = task.data
    if split == "train":
        source, places, facts = data.train, data.trained_on.tolist(), task.facts()
    else:
        source, places = data.val, list(range(data.num_val))
        facts = {"num_val": data.num_val, "num_categories": len(data.category_ids)}
    chosen = [places[number] for number in spread(len(places), at_most or len(places))]
    loader = _loader(
        task,
        DetectionSamples(source, data.resize),
        chosen,
        batch_size=1,
        collate=collate_detection,
        skip_broken=False,
    )
    return EvaluationImages(loader, len(chosen), _call_of_detector, facts)


def _loader(
    task: Classification | Detection,
    samples: Dataset[Any],
    chosen: Sequence[int],
    *,
    batch_size: int,
    collate: Callable[[list[Any]], tuple[Any, list[str]]],
    skip_broken: bool,
) -> BatchLoader[Any]:
    batches = [list(chosen[first : first + batch_size]) for first in range(0, len(chosen), batch_size)]
    return BatchLoader(samples, batches, collate=collate, workers=task.data.workers, skip_broken=skip_broken)


def _call_of_classifier(batch: ImageBatch, device: torch.device) -> Call:
    images, _ = batch
    return Call((images.to(device, non_blocking=True),), {}, len(images))


def _call_of_detector(batch: DetectionBatch, device: torch.device) -> Call:
    images = [image.to(device, non_blocking=True) for image in batch.images]
    return Call((images,), {"original_sizes": batch.original_sizes}, len(images))


def _plain_classifier(config: ImageNetConfig, world: World) -> tuple[Classification, nn.Module, object]:
    """Leave out what is for speed: compiling hides the layers' inputs, another layout rounds otherwise."""
    runtime = dataclasses.replace(config.runtime, compile=False, channels_last=False)
    return train_imagenet.build(dataclasses.replace(config, runtime=runtime), world)


CLASSIFIER = Program(IMAGENET, _plain_classifier, classifier_images)
DETECTOR = Program(COCO, train_coco.build, detector_images)
