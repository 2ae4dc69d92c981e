import json
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
from engine.data.coco.masks import Segmentation, _decoded, rasterize
from tests.engine.data.coco.coco_files import split_content
from tests.engine.data.coco.laws import lawful


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


@lawful
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)))
def test_the_text_of_an_rle_is_read_as_pycocotools_reads_it(pixels: np.ndarray) -> None:
    rle = coco_mask.encode(np.asfortranarray(pixels))
    runs = _decoded(rle["counts"].decode())
    assert sum(runs) == pixels.size and min(runs) >= 0
    outline = Segmentation([np.array(runs, dtype=np.float64)], is_runs=True)
    assert np.array_equal(rasterize([outline], pixels.shape, pixels.shape)[0].numpy(), pixels)


def test_long_runs_in_the_text_of_an_rle_are_read() -> None:
    pixels = np.zeros((700, 900), dtype=np.uint8, order="F")
    pixels[:, 300:850] = 1
    pixels[5:9, 400] = 0
    runs = _decoded(coco_mask.encode(pixels)["counts"].decode())
    assert runs == [300 * 700, 100 * 700 + 5, 4, 449 * 700 + 700 - 9, 50 * 700]


def test_an_rle_may_have_any_number_of_runs() -> None:
    pixels = np.asfortranarray(np.indices((40, 50)).sum(0) % 2, dtype=np.uint8)
    runs = _decoded(coco_mask.encode(pixels)["counts"].decode())
    assert len(runs) > 1500
    outline = Segmentation([np.array(runs, dtype=np.float64)], is_runs=True)
    assert np.array_equal(rasterize([outline], (40, 50), (40, 50))[0].numpy(), pixels)


def test_no_object_has_no_mask() -> None:
    assert rasterize([], (10, 20), (30, 60)).shape == (0, 30, 60)
