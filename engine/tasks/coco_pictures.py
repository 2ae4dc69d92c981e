"""Detections drawn over the ground truth: a grid of photographs that shows what a detector has learned."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from engine.records.curves import OKABE_ITO
from engine.tasks.coco_scoring import Detections

MIN_SCORE = 0.5  # of the detections drawn
_COLUMNS = 4
_CELL_PX = 420  # the longer side of an image in the grid
_GAP_PX, _HEAD_PX = 8, 24
_MASK_OPACITY = 0.45

Pixels = npt.NDArray[np.uint8]


def detections_grid(cells: Sequence[torch.Tensor]) -> Pixels:
    """Return one picture, uint8 (height, width, 3), of those that `draw_detections` returned, one or more."""
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (1, 2))
    padded = [
        functional.pad(cell, [0, 0, width - cell.shape[2], height - cell.shape[1]], fill=255)
        for cell in cells
    ]
    grid = make_grid(torch.stack(padded), nrow=min(_COLUMNS, len(cells)), padding=_GAP_PX, pad_value=255)
    page = functional.pad(grid, [0, _HEAD_PX, 0, 0], fill=255)
    picture = functional.to_pil_image(page)
    legend = f"coloured: detections with score >= {MIN_SCORE:g}; white: ground truth"
    ImageDraw.Draw(picture).text((_GAP_PX, _GAP_PX), legend, fill="black")
    return np.asarray(picture)


def draw_detections(
    image: Image.Image, truth: torch.Tensor, found: Detections, names: Sequence[str]
) -> torch.Tensor:
    """Return an image with the boxes of ground truth and detections, small, uint8 (3, height, width).

    Boxes are (n, 4) x1 y1 x2 y2 in the image's pixels; `found` also has scores (n,), labels (n,) and perhaps
    masks (n, height, width).
    """
    scores = found["scores"].cpu()
    # The surest last, that is on top.
    shown = [place for place in scores.argsort(stable=True).tolist() if scores[place] >= MIN_SCORE]
    labels = found["labels"].cpu()[shown].tolist()
    colors = [_color(label) for label in labels]
    pixels = functional.pil_to_tensor(image.convert("RGB"))
    if "masks" in found and shown:
        masks = found["masks"][shown].cpu().ne(0)
        pixels = draw_segmentation_masks(pixels, masks, alpha=_MASK_OPACITY, colors=colors)
    scale = _CELL_PX / max(image.size)
    pixels = functional.resize(pixels, [max(1, round(side * scale)) for side in pixels.shape[1:]])
    # White on black is seen on any ground, and the white line on a detection of the same box too.
    pixels = _with_boxes(pixels, truth * scale, "black", 3)
    if shown:
        texts = [f"{names[label]} {scores[place]:.2f}" for place, label in zip(shown, labels, strict=True)]
        pixels = draw_bounding_boxes(
            pixels,
            found["boxes"].cpu()[shown] * scale,
            texts,
            colors,
            width=3,
            label_colors=[_readable_on(color) for color in colors],
            fill_labels=True,
        )
    return _with_boxes(pixels, truth * scale, "white", 1)


def _with_boxes(pixels: torch.Tensor, boxes: torch.Tensor, color: str, width: int) -> torch.Tensor:
    # torchvision warns of none
    return draw_bounding_boxes(pixels, boxes, colors=color, width=width) if len(boxes) else pixels


def _color(label: int) -> tuple[int, int, int]:
    color = OKABE_ITO[label % len(OKABE_ITO)]  # colours return after seven classes; the label says the rest
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _readable_on(color: tuple[int, int, int]) -> str:
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"  # ITU-R BT.601's luma
