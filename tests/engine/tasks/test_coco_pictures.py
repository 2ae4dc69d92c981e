from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.records.curves import OKABE_ITO
from engine.tasks.coco_pictures import detections_grid, draw_detections

NAMES = ["cat", "dog", "baseball glove"]
Box = tuple[float, float, float, float]
NO_BOX = torch.zeros(0, 4)


def grey(width: int, height: int, level: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (level, level, level))


def objects(*boxes: Box, labels: tuple[int, ...] = (), scores: tuple[float, ...] = ()) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores),
    }


NOTHING = objects()


def drawn(image: Image.Image, found: dict[str, Any], truth: torch.Tensor = NO_BOX) -> np.ndarray:
    return detections_grid([draw_detections(image, truth, found, NAMES)])


def color(label: int) -> np.ndarray:
    return np.array([int(OKABE_ITO[label][place : place + 2], 16) for place in (1, 3, 5)])


def count_near(picture: np.ndarray, wanted: np.ndarray | int, tolerance: int = 12) -> int:
    """Pixels of nearly that colour."""
    return int((np.abs(picture.astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def test_a_detection_is_a_box_with_a_label_in_the_color_of_its_class() -> None:
    found = objects((10, 10, 60, 60), (70, 20, 120, 90), labels=(0, 1), scores=(0.876, 0.61))
    picture = drawn(grey(128, 96), found)
    assert all(count_near(picture, color(label)) > 300 for label in (0, 1))
    assert count_near(picture, color(2)) == 0
    other = drawn(grey(128, 96), found | {"scores": torch.tensor([0.876, 0.93])})
    changed = np.argwhere((picture != other).any(axis=-1))
    assert len(changed) and np.ptp(changed, axis=0).max() < 40  # digits of the label alone


def test_detections_below_the_least_score_are_not_drawn() -> None:
    unsure = objects((10, 10, 60, 60), labels=(0,), scores=(0.49,))
    unsure["masks"] = torch.ones(1, 96, 128, dtype=torch.bool)
    assert np.array_equal(drawn(grey(128, 96), unsure), drawn(grey(128, 96), NOTHING))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_masks_tint_their_pixels_in_the_color_of_the_class(dtype: torch.dtype) -> None:
    found = objects((0, 0, 100, 100), labels=(1,), scores=(0.9,))
    found["masks"] = torch.zeros(1, 100, 100, dtype=dtype)
    found["masks"][0, :, :50] = 1
    image = grey(100, 100, level=200)
    picture = drawn(image, found)
    left, right = picture[-100, 100].astype(int), picture[-100, 320].astype(int)
    assert np.abs(left - (0.55 * 200 + 0.45 * color(1))).max() <= 1
    assert np.abs(right - 200).max() <= 1
    assert np.asarray(image).min() == 200  # the image itself stays as it is


def test_the_surest_detection_is_on_top_whatever_the_order() -> None:
    box = (10.0, 10.0, 90.0, 90.0)
    for scores in ((0.9, 0.6), (0.6, 0.9)):
        picture = drawn(grey(100, 100), objects(box, box, labels=(0, 1), scores=scores))
        counts = [count_near(picture[150:], color(label)) for label in (0, 1)]  # below the labels
        assert counts.index(max(counts)) == scores.index(0.9)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_ground_truth_is_seen_on_any_ground_and_on_an_exact_detection(level: int) -> None:
    box = (20.0, 20.0, 80.0, 80.0)
    truth, exact = torch.tensor([box]), objects(box, labels=(0,), scores=(0.9,))
    for found in (NOTHING, exact):
        without = drawn(grey(100, 100, level), found)
        changes = np.abs(drawn(grey(100, 100, level), found, truth).astype(int) - without).max(axis=-1)
        assert (changes > 60).sum() > 400
    assert count_near(drawn(grey(100, 100, level), exact, truth), color(0)) > 400
