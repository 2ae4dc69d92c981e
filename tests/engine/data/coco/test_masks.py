import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from engine.data.coco.annotations import CocoAnnotations
from engine.data.coco.masks import rasterize
from tests.engine.data.coco.coco_files import split_content


def opened(folder: Path, content: dict[str, Any]) -> tuple[CocoAnnotations, COCO]:
    path = folder / "instances_x.json"
    path.write_text(json.dumps(content))
    reference = COCO()
    reference.dataset = content
    reference.createIndex()
    return CocoAnnotations(path, with_masks=True, scored=True), reference


def test_masks_at_the_original_size_are_those_of_pycocotools(tmp_path: Path) -> None:
    annotations, reference = opened(tmp_path, split_content(100, 12))
    for index, image_id in enumerate(annotations.image_ids.tolist()):
        size = int(annotations.heights[index]), int(annotations.widths[index])
        masks = rasterize(annotations.objects(index).segmentations, size, size)
        found = reference.loadAnns(reference.getAnnIds(imgIds=[image_id], iscrowd=False))
        assert masks.dtype == torch.uint8 and masks.shape == (len(found), *size)
        assert masks.is_contiguous()
        for mask, annotation in zip(masks, found, strict=True):
            assert np.array_equal(mask.numpy(), reference.annToMask(annotation))


@pytest.mark.parametrize("size", [(80, 60), (15, 22), (61, 40)])
def test_scaled_masks_fill_their_scaled_boxes(tmp_path: Path, size: tuple[int, int]) -> None:
    annotations, _ = opened(tmp_path, split_content(100, 12))
    checked = 0
    for index in range(len(annotations)):
        original = int(annotations.heights[index]), int(annotations.widths[index])
        objects = annotations.objects(index)
        scale = np.tile([size[1] / original[1], size[0] / original[0]], 2)
        for mask, box in zip(rasterize(objects.segmentations, original, size), objects.boxes, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(around) - box * scale).max() <= 1.0
            checked += 1
    assert checked == 10


def with_runs(runs: object) -> dict[str, Any]:
    """Return a file of one image, 30 x 40 pixels, with one object of these runs."""
    content = split_content(103, 1)
    content["annotations"] = [
        content["annotations"][0] | {"segmentation": {"size": [40, 30], "counts": runs}}
    ]
    return content


@given(arrays.arrays(np.uint8, (40, 30), elements=st.integers(0, 1)))
def test_an_rle_is_read_as_pycocotools_reads_it(pixels: np.ndarray) -> None:
    text = coco_mask.encode(np.asfortranarray(pixels))["counts"].decode()
    edges = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0))
    runs = np.diff([0, *edges.tolist(), pixels.size]).tolist()
    for counts in (text, runs):
        with tempfile.TemporaryDirectory() as folder:
            annotations, _ = opened(Path(folder), with_runs(counts))
        masks = rasterize(annotations.objects(0).segmentations, (40, 30), (40, 30))
        assert np.array_equal(masks[0].numpy(), pixels)


def test_large_and_many_runs_in_the_text_of_an_rle_are_read(tmp_path: Path) -> None:
    pixels = np.zeros((700, 900), dtype=np.uint8, order="F")
    pixels[:, 300:850] = 1
    pixels[5:90:2, 400:500] = 0
    content = with_runs(coco_mask.encode(pixels)["counts"].decode())
    content["images"][0] |= {"height": 700, "width": 900}
    content["annotations"][0]["segmentation"]["size"] = [700, 900]
    annotations, _ = opened(tmp_path, content)
    masks = rasterize(annotations.objects(0).segmentations, (700, 900), (700, 900))
    assert np.array_equal(masks[0].numpy(), pixels)


def test_no_object_has_no_mask() -> None:
    assert rasterize([], (10, 20), (30, 60)).shape == (0, 30, 60)
