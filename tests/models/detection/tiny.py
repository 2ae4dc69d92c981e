"""Detectors and images of milliseconds: a ResNet-18 below a pyramid of few channels."""

from typing import Any

import torch
from torch import Tensor

from models import activation_factory
from models.detection import Detector, DetectorRecipe, build_detector
from models.sync_batch_norm import synchronize_batch_norm

NUM_CLASSES = 3
RECIPE = {"pyramid_channels": 16, "smallest_anchor_px": 16.0, "region_samples": 64}


def detector(
    architecture: str, activation: str = "pwlu", *, library: str = "torchvision", seed: int = 0, **recipe: Any
) -> Detector:
    """Return a detector in training mode that takes empty inputs, always with the same weights for a seed."""
    torch.manual_seed(seed)
    model, _ = build_detector(
        architecture,
        library,
        activation_factory(activation, num_intervals=4),
        num_classes=NUM_CLASSES,
        backbone="resnet18",
        recipe=DetectorRecipe(**{**RECIPE, **recipe}),
    )
    synchronize_batch_norm(model, torch.device("cpu"))
    return model


def image(index: int, height: int = 64, width: int = 96) -> Tensor:
    """Return an image of noise in [0, 1], float32 (3, height, width)."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(index))


def target(index: int, count: int, height: int = 64, width: int = 96) -> dict[str, Tensor]:
    """Return `count` objects: ellipses of 16 to 48 px, whose boxes end between pixels."""
    generator = torch.Generator().manual_seed(100 + index)
    uniform = torch.rand(count, 4, generator=generator)
    sides = 16 + 32 * uniform[:, 2:]
    corners = uniform[:, :2] * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], dim=1)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return {"boxes": boxes, "labels": labels, "masks": ellipses(boxes, height, width).to(torch.uint8)}


def ellipses(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return bool (n, height, width), the pixels whose centres are in the ellipse that a box encloses."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.unbind(1))
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def batch(*counts: int, **size: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return as many images as counts, with so many objects each."""
    return (
        [image(index, **size) for index in range(len(counts))],
        [target(index, count, **size) for index, count in enumerate(counts)],
    )


def total(losses: dict[str, Tensor]) -> Tensor:
    """Add the losses up, as the trainer does."""
    return torch.stack(list(losses.values())).sum()
