"""Masks of regions: cut out of an image's masks for training, put back into the image as detections.

Both take pixel (i, j) of an image as the square [j, j + 1] x [i, i + 1], as boxes do, so that they are
inverse to each other without an offset; torchvision's own pair is half a pixel off in either direction.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align

MAX_ELEMENTS = 2**24  # of masks as floats at a time, 64 MiB
_MAX_WHOLE = 2**26  # the same of an image of which all masks are used


def cut_masks(masks: Tensor, index: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """Return masks inside boxes, float32 (n, cells, cells): 1 where at least half of a cell is the object's.

    `masks` are uint8 (m, H, W), `index` int64 (n,) the mask that each of the `boxes` (n, 4) is for.
    """
    # Lengths alone decide, so that nothing waits for a GPU.
    if len(masks) <= len(boxes) and masks.numel() <= _MAX_WHOLE:
        return _cut(masks, index, boxes, cells)
    # Masks are chosen before they become floats, a few regions at a time: 500 objects would take 2 GB, and
    # most of them belong to no region.
    at_once = _masks_at_once(*masks.shape[1:])
    parts = [
        _cut(masks[chosen], torch.arange(len(chosen), device=masks.device), part, cells)
        for chosen, part in zip(index.split(at_once), boxes.split(at_once), strict=True)
    ]
    return torch.cat(parts)


def _cut(masks: Tensor, index: Tensor, boxes: Tensor, cells: int) -> Tensor:
    regions = torch.cat([index[:, None].float(), boxes.float()], dim=1)
    share = roi_align(masks[:, None].float(), regions, cells, aligned=True)
    return (share[:, 0] >= 0.5).float()


def _masks_at_once(height: int, width: int) -> int:
    return max(1, MAX_ELEMENTS // max(1, height * width))


def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Put the masks (n, cells, cells) of boxes (n, 4) into images of their own, bool (n, height, width).

    A pixel belongs to the mask where the probability, interpolated at its centre, is `threshold` or more.
    """
    height, width = size
    pasted = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    at_once = _masks_at_once(height, width)
    for start in range(0, len(boxes), at_once):
        part = slice(start, start + at_once)
        x1, y1, x2, y2 = boxes[part].float().unbind(1)
        rows = _interpolation(y1, y2, height, probabilities.shape[-2])
        columns = _interpolation(x1, x2, width, probabilities.shape[-1])
        with torch.autocast(boxes.device.type, enabled=False):  # it would round these products
            pasted[part] = rows @ probabilities[part].float() @ columns.transpose(1, 2) >= threshold
    return pasted


def _interpolation(low: Tensor, high: Tensor, length_px: int, cells: int) -> Tensor:
    """Return the weights (n, length_px, cells) of linear interpolation along one axis, 0 outside the box."""
    pixels = torch.arange(length_px, device=low.device) + 0.5
    side = (high - low).clamp(min=1e-6)[:, None]
    position = (pixels - low[:, None]) / side * cells - 0.5  # in cells, whole at a cell's centre
    distance = (position[:, :, None] - torch.arange(cells, device=low.device)).abs()
    return (1 - distance).clamp(min=0)
