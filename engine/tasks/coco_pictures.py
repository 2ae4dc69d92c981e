"""Detections drawn over the ground truth: a grid of photographs that shows what a detector has learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no display is needed, and a cluster has none
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from PIL import Image

from engine.records.curves import render
from engine.records.palette import OKABE_ITO

_MASK_OPACITY = 0.45
_DPI = 100
_GAP_PX, _LINE_PX, _PADDING_PX = 8, 20, 2
_FONT = FontProperties(size=8)

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]  # x1 y1 x2 y2
Objects = Mapping[str, torch.Tensor]


def truths_of(
    ground_truth: Mapping[str, Any], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, torch.Tensor]]:
    """Return what is in some images of a COCO annotation file, for `draw_detections`; crowds are left out.

    For each image boxes float32 (n, 4) x1 y1 x2 y2 in pixels, labels int64 (n,), places in `category_ids`.
    """
    labels = {category: label for label, category in enumerate(category_ids)}
    found: dict[int, list[tuple[list[float], int]]] = {image_id: [] for image_id in image_ids}
    for annotation in ground_truth["annotations"]:
        if annotation["image_id"] in found and not annotation.get("iscrowd"):
            x, y, width, height = annotation["bbox"]
            corners = [x, y, x + width, y + height]
            found[annotation["image_id"]].append((corners, labels[annotation["category_id"]]))
    return [
        {
            "boxes": torch.tensor([corners for corners, _ in found[image_id]], dtype=torch.float32).reshape(
                -1, 4
            ),
            "labels": torch.tensor([label for _, label in found[image_id]], dtype=torch.int64),
        }
        for image_id in image_ids
    ]


def draw_detections(
    images: Sequence[Image.Image],
    truths: Sequence[Objects],
    detections: Sequence[Objects],
    names: Sequence[str],
    *,
    title: str = "",
    least_score: float = 0.5,
    columns: int = 4,
    cell_px: int = 420,
) -> Pixels:
    """Return a grid of images with the ground truth's boxes and the detections, uint8 (height, width, 3).

    Images are enlarged or reduced until they fit into equal cells. Detections are boxes with name and score
    in the colour of their class, with the mask where there is one, the surest on top. Boxes too small or too
    crowded for a label have none. The ground truth is dashed.

    Args:
        images: RGB, of any sizes.
        truths: for each image boxes (n, 4) x1 y1 x2 y2 in its pixels; other entries are not drawn.
        detections: for each image boxes, scores (n,), labels (n,) and perhaps masks (n, height, width).
        names: of the classes 0 .. K - 1.
        title: what is seen, such as the step; how to read the picture is said below it.
        least_score: detections below are not drawn.
        columns: images per row, at most.
        cell_px: the longest side of an image in the grid.

    Raises:
        ValueError: no image, or not one truth and one entry of detections per image.
    """
    if not images or not len(images) == len(truths) == len(detections):
        raise ValueError(
            "images, truths, detections: expected one of each per image, for one image or more; got "
            f"{len(images)}, {len(truths)}, {len(detections)}"
        )
    legend = f"solid: detections with score >= {least_score:g}; dashed: ground truth"
    head = [title, legend] if title else [legend]
    figure, panels = _grid([image.size for image in images], columns, cell_px, _GAP_PX + len(head) * _LINE_PX)
    for number, line in enumerate(head):
        x, y = _GAP_PX / figure.bbox.width, 1 - (_GAP_PX + number * _LINE_PX) / figure.bbox.height
        size, color = (11, "black") if line == title else (9, "0.35")
        figure.text(x, y, line, va="top", fontsize=size, color=color)
    for panel, image, truth, found in zip(panels, images, truths, detections, strict=True):
        _draw_image(panel, image, truth["boxes"].tolist(), _shown(found, least_score), names)
    return render(figure)


def _grid(
    sizes: list[tuple[int, int]], columns: int, cell_px: int, head_px: int
) -> tuple[Figure, list[Axes]]:
    """Return a figure and for each image (width, height) a panel in its pixels, with room around the image.

    Panels are equal, and just large enough for each image with its longer side enlarged to `cell_px`.
    """
    longest = [max(size) for size in sizes]
    cell = tuple(
        max(round(cell_px * size[axis] / side) for size, side in zip(sizes, longest, strict=True))
        for axis in (0, 1)
    )
    columns = min(columns, len(sizes))
    rows = -(-len(sizes) // columns)
    width = columns * (cell[0] + _GAP_PX) + _GAP_PX
    height = rows * (cell[1] + _GAP_PX) + head_px
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)  # becomes the figure's canvas, which measures texts
    panels = []
    for number, (size, side) in enumerate(zip(sizes, longest, strict=True)):
        row, column = divmod(number, columns)
        left = _GAP_PX + column * (cell[0] + _GAP_PX)
        bottom = height - head_px - row * (cell[1] + _GAP_PX) - cell[1]
        place = (left / width, bottom / height, cell[0] / width, cell[1] / height)
        panel = figure.add_axes(place, facecolor="0.93", xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        margins = [(length * side / cell_px - own) / 2 for length, own in zip(cell, size, strict=True)]
        panel.set(xlim=(-margins[0], size[0] + margins[0]), ylim=(size[1] + margins[1], -margins[1]))
        panels.append(panel)
    return figure, panels


def _shown(found: Objects, least_score: float) -> list[dict[str, Any]]:
    """Return detections that are sure enough, by rising score, as plain numbers and masks."""
    scores = found["scores"].detach().cpu()
    order = [place for place in scores.argsort(stable=True).tolist() if scores[place] >= least_score]
    boxes, labels = found["boxes"].tolist(), found["labels"].tolist()
    masks = found["masks"].detach().cpu().ne(0).numpy() if "masks" in found else [None] * len(boxes)
    return [
        {"box": boxes[place], "label": labels[place], "score": scores[place].item(), "mask": masks[place]}
        for place in order
    ]


def _draw_image(
    panel: Axes, image: Image.Image, truth: list[Box], found: list[dict[str, Any]], names: Sequence[str]
) -> None:
    pixels = _with_masks(image, found)
    # The panel is laid out already; imshow would make it as small as the image.
    limits = {"xlim": panel.get_xlim(), "ylim": panel.get_ylim()}
    enlarged = _image_px_per_px(panel) < 1
    panel.imshow(
        pixels,
        extent=(0, image.width, image.height, 0),
        aspect="auto",
        interpolation="bicubic" if enlarged else "antialiased",
    )
    panel.set(**limits)
    # White dashes on black are seen on any ground; with the colour in between an exact detection shows both.
    for box in truth:
        _draw_box(panel, box, edgecolor="black", linewidth=1.0, alpha=0.6)
    for one in found:
        _draw_box(panel, one["box"], edgecolor="black", linewidth=2.6, alpha=0.5)
        _draw_box(panel, one["box"], edgecolor=_color(one["label"]), linewidth=1.8)
    for box in truth:
        _draw_box(panel, box, edgecolor="white", linewidth=0.9, linestyle=(0, (4, 4)))
    taken: list[Box] = []
    for one in reversed(found):
        _draw_label(panel, one, f"{names[one['label']]} {one['score']:.2f}", taken)


def _with_masks(image: Image.Image, found: list[dict[str, Any]]) -> Pixels:
    """Return the image's pixels (height, width, 3), tinted where there are masks."""
    pixels = np.asarray(image.convert("RGB"), np.float32).copy()
    for one in found:
        if one["mask"] is not None:
            color = np.array(_rgb(_color(one["label"])), np.float32)
            pixels[one["mask"]] += _MASK_OPACITY * (color - pixels[one["mask"]])
    return pixels.round().astype(np.uint8)


def _draw_box(panel: Axes, box: Box, **style: Any) -> None:
    panel.add_patch(Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, **style))


def _draw_label(panel: Axes, one: Mapping[str, Any], text: str, taken: list[Box]) -> None:
    """Write a label at the box on its class's colour and add its place to `taken`, unless it would hide more.

    Boxes smaller than their labels get none, nor do those that have only places where others are already.
    """
    width, height = _label_size(panel, text)
    x1, y1, x2, y2 = box = one["box"]
    if (x2 - x1) * (y2 - y1) < width * height:
        return
    place = _free_place(panel, box, width, height, taken)
    if place is None:
        return
    taken.append(place)
    color = _color(one["label"])
    panel.add_patch(Rectangle(place[:2], width, height, color=color, linewidth=0, zorder=3))
    red, green, blue = _rgb(color)
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"  # ITU-R BT.601's luma
    middle = place[0] + width / 2, place[1] + height / 2
    panel.text(*middle, text, color=ink, fontproperties=_FONT, ha="center", va="center_baseline", zorder=4)


def _free_place(panel: Axes, box: Box, width: float, height: float, taken: Sequence[Box]) -> Box | None:
    """Return where at one of the box's corners, and in the panel, a label covers no other."""
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    for y in (box[1] - height, box[1], box[3] - height, box[3]):
        for x in (box[0], box[2] - width):
            x1, y1 = max(left, min(x, right - width)), max(top, min(y, bottom - height))
            place = (x1, y1, x1 + width, y1 + height)
            if not any(_overlap(place, other) for other in taken):
                return place
    return None


def _label_size(panel: Axes, text: str) -> tuple[float, float]:
    """Return a label's width and height in the image's pixels."""
    canvas = panel.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "_grid made it"
    width, height, _ = canvas.get_renderer().get_text_width_height_descent(text, _FONT, False)
    scale = _image_px_per_px(panel)
    return (width + 2 * _PADDING_PX) * scale, (height + 2 * _PADDING_PX) * scale


def _image_px_per_px(panel: Axes) -> float:
    left, right = panel.get_xlim()
    return (right - left) / panel.get_window_extent().width


def _overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _color(label: int) -> str:
    return OKABE_ITO[label % len(OKABE_ITO)]  # colours return after seven classes; the label says the rest


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
