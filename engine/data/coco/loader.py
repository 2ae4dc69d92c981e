"""Batches of a detector: images of different sizes, so lists instead of stacked tensors."""

from typing import NamedTuple

import torch

from engine.data.coco.dataset import DetectionSample
from engine.data.coco.transforms import Target


class DetectionBatch(NamedTuple):
    """Images float32 (3, h, w), RGB in [0, 1], each with its target, COCO id and original (height, width).

    A target has "boxes" float32 (n, 4), x1 y1 x2 y2 in pixels of its image, "labels" int64 (n,) from 0 and,
    in training data opened with masks, "masks" uint8 (n, h, w); n may be 0. All are on the CPU.
    """

    images: list[torch.Tensor]
    targets: list[Target]
    image_ids: list[int]
    original_sizes: list[tuple[int, int]]


def collate_detection(samples: list[DetectionSample]) -> tuple[DetectionBatch | None, list[str]]:
    """Return the batch of the readable samples, None if there are none, and what is wrong with the others."""
    broken = [sentence for sample in samples for sentence in sample.broken]
    readable = [(sample.image, sample) for sample in samples if sample.image is not None]
    if not readable:
        return None, broken
    batch = DetectionBatch(
        images=[image for image, _ in readable],
        targets=[sample.target for _, sample in readable],
        image_ids=[sample.image_id for _, sample in readable],
        original_sizes=[sample.original_size for _, sample in readable],
    )
    return batch, broken
