"""Detections as entries of COCO's results format, the one that COCO's scorers and its server read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

Detections = Mapping[str, torch.Tensor]


def coco_results(
    image_ids: Sequence[int], detections: Sequence[Detections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one entry per detection, in the order of the images and of the detections of each.

    An entry holds plain numbers and strings, ready for JSON: `image_id`, `category_id`, `bbox`
    [x, y, width, height] in pixels, `score`, and where masks came `segmentation`, run lengths
    {"size": [height, width], "counts": str}. Widths are differences in float64: the float32 corners, scores
    and masks can be had back to the bit.

    Args:
        image_ids: the images' ids in the ground truth.
        detections: for each image boxes float32 (n, 4) x1 y1 x2 y2 in pixels of the original image, scores
            float32 (n,), labels int64 (n,) and perhaps masks bool or uint8 (n, height, width); any device.
        category_ids: the id in the ground truth of every label 0 .. K - 1.

    Raises:
        ValueError: lengths that differ, or a label that has no category; the message names the image.
    """
    if len(image_ids) != len(detections):
        raise ValueError(
            f"image_ids, detections: expected one of each per image, got {len(image_ids)} ids and "
            f"{len(detections)} images' detections"
        )
    entries = []
    for image_id, found in zip(image_ids, detections, strict=True):
        entries += _entries(int(image_id), found, category_ids)
    return entries


def _entries(image_id: int, found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    _check(image_id, found, len(category_ids))
    corners = found["boxes"].detach().cpu().double()
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    entries: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": int(category_ids[label]), "bbox": box, "score": score}
        for box, score, label in zip(boxes, found["scores"].tolist(), found["labels"].tolist(), strict=True)
    ]
    if "masks" in found:
        for entry, lengths in zip(entries, _run_lengths(found["masks"]), strict=True):
            entry["segmentation"] = lengths
    return entries


def _check(image_id: int, found: Detections, num_classes: int) -> None:
    lengths = {name: len(found[name]) for name in ("boxes", "scores", "labels", "masks") if name in found}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"detections of image {image_id}: expected one entry each, got lengths {lengths}")
    unknown = [label for label in found["labels"].tolist() if not 0 <= label < num_classes]
    if unknown:
        raise ValueError(
            f"detections of image {image_id}: label {unknown[0]} has no category; expected labels "
            f"0 .. {num_classes - 1}, one per entry of category_ids"
        )


def _run_lengths(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Return COCO's run lengths of masks (n, height, width); any value but 0 belongs to the object."""
    # pycocotools counts down the columns: it takes (height, width, n) in Fortran's order
    planes = np.asfortranarray(masks.detach().cpu().ne(0).numpy().astype(np.uint8).transpose(1, 2, 0))
    return [
        {"size": [int(side) for side in lengths["size"]], "counts": lengths["counts"].decode("ascii")}
        for lengths in coco_mask.encode(planes)
    ]
