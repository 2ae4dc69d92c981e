import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from engine.tasks.coco_results import coco_results

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORY_IDS = [1, 18, 90]


def found(count: int, seed: int = 0, size: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    """Detections with corners of very different magnitudes, which float32 differences would spoil."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = 10.0 ** torch.randint(-6, 4, (count, 2, 2), generator=generator)
    corners = (torch.rand(count, 2, 2, generator=generator) * magnitudes).sort(dim=1).values.flatten(1)
    detections = {
        "boxes": corners,
        "scores": torch.rand(count, generator=generator),
        "labels": torch.randint(3, (count,), generator=generator),
    }
    if size is not None:
        detections["masks"] = torch.rand(count, *size, generator=generator) < 0.5
    return detections


def test_what_a_file_of_results_holds_gives_back_the_detections_to_the_bit() -> None:
    detections = found(200, size=(7, 11))
    entries = json.loads(json.dumps(coco_results([42], [detections], CATEGORY_IDS)))
    corners = np.array([entry["bbox"] for entry in entries])
    corners[:, 2:] += corners[:, :2]
    assert torch.equal(torch.from_numpy(corners).float(), detections["boxes"])
    scores = torch.tensor([entry["score"] for entry in entries], dtype=torch.float64)
    assert torch.equal(scores, detections["scores"].double())
    labels = [CATEGORY_IDS.index(entry["category_id"]) for entry in entries]
    assert labels == detections["labels"].tolist()
    masks = np.stack([coco_mask.decode(entry["segmentation"]) for entry in entries])
    assert np.array_equal(masks.astype(bool), detections["masks"].numpy())
    assert all(entry["segmentation"]["size"] == [7, 11] for entry in entries)


def test_entries_come_in_the_order_of_images_and_detections() -> None:
    detections = [found(2, seed=1), found(0), found(3, seed=2)]
    entries = coco_results([7, 3, 5], detections, CATEGORY_IDS)
    assert [entry["image_id"] for entry in entries] == [7, 7, 5, 5, 5]
    scores = torch.cat([detections[0]["scores"], detections[2]["scores"]])
    assert [entry["score"] for entry in entries] == scores.tolist()
    assert all(entry.keys() == {"image_id", "category_id", "bbox", "score"} for entry in entries)


def test_ids_that_are_numpy_numbers_become_plain_ones() -> None:
    image_ids, category_ids = np.array([7]), np.array(CATEGORY_IDS)
    json.dumps(coco_results(image_ids, [found(2)], category_ids))


def test_no_detections_give_no_entries() -> None:
    assert coco_results([], [], CATEGORY_IDS) == []
    assert coco_results([1], [found(0, size=(4, 5))], CATEGORY_IDS) == []


def test_every_value_but_0_is_in_the_mask() -> None:
    masks = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    (entry,) = coco_results([1], [found(1) | {"masks": masks}], CATEGORY_IDS)
    assert coco_mask.decode(entry["segmentation"]).tolist() == [[0, 1], [1, 1]]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="got 2 ids and 1 images' detections"):
        coco_results([1, 2], [found(1)], CATEGORY_IDS)
    with pytest.raises(ValueError, match="image 5: label 3 has no category; expected labels 0 .. 2"):
        coco_results([5], [found(1) | {"labels": torch.tensor([3])}], CATEGORY_IDS)
    with pytest.raises(ValueError, match=r"image 5: .* got lengths .*'scores': 1"):
        coco_results([5], [found(2) | {"scores": torch.ones(1)}], CATEGORY_IDS)
