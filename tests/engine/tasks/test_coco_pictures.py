from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from engine.records.curves import render
from engine.records.palette import OKABE_ITO
from engine.tasks import coco_pictures as pictures
from engine.tasks.coco_pictures import draw_detections, truths_of

NAMES = ["cat", "dog", "baseball glove"]
Box = tuple[float, float, float, float]


def grey(width: int, height: int, level: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (level, level, level))


def objects(*boxes: Box, labels: tuple[int, ...] = (), scores: tuple[float, ...] = ()) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores),
    }


NOTHING = objects()


def color(label: int) -> np.ndarray:
    return np.array([int(OKABE_ITO[label][place : place + 2], 16) for place in (1, 3, 5)])


def count_near(picture: np.ndarray, wanted: np.ndarray, tolerance: int = 12) -> int:
    """Pixels of nearly that colour."""
    return int((np.abs(picture.astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def texts(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> list[Any]:
    """The figure's head, then the texts of each panel."""
    figures: list[Figure] = []

    def keep(figure: Figure) -> np.ndarray:
        figures.append(figure)
        return render(figure)

    monkeypatch.setattr(pictures, "render", keep)
    draw_detections(*arguments, **options)
    head = [text.get_text() for text in figures[0].texts]
    return [head, *([text.get_text() for text in panel.texts] for panel in figures[0].get_axes())]


def test_a_detection_is_a_box_in_the_color_of_its_class_with_name_and_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = objects((10, 10, 60, 60), (70, 20, 120, 90), labels=(0, 1), scores=(0.876, 0.61))
    arguments = ([grey(128, 96)], [NOTHING], [found], NAMES)
    picture = draw_detections(*arguments)
    for label in (0, 1):
        assert count_near(picture, color(label)) > 300
    assert count_near(picture, color(2)) == 0
    assert texts(monkeypatch, *arguments)[1] == ["cat 0.88", "dog 0.61"]


def test_the_head_says_how_to_read_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ([grey(128, 96)], [NOTHING], [NOTHING], NAMES)
    legend = "solid: detections with score >= 0.3; dashed: ground truth"
    assert texts(monkeypatch, *arguments, title="step 30", least_score=0.3) == [["step 30", legend], []]
    assert texts(monkeypatch, *arguments, least_score=0.3) == [[legend], []]


def test_detections_below_the_least_score_are_not_drawn() -> None:
    unsure = objects((10, 10, 60, 60), labels=(0,), scores=(0.49,))
    unsure["masks"] = torch.ones(1, 96, 128, dtype=torch.bool)
    without = draw_detections([grey(128, 96)], [NOTHING], [NOTHING], NAMES)
    assert np.array_equal(draw_detections([grey(128, 96)], [NOTHING], [unsure], NAMES), without)
    shown = draw_detections([grey(128, 96)], [NOTHING], [unsure], NAMES, least_score=0.49)
    assert not np.array_equal(shown[30:], without[30:])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_masks_tint_their_pixels_in_the_color_of_the_class(dtype: torch.dtype) -> None:
    found = objects((0, 0, 100, 100), labels=(1,), scores=(0.9,))
    found["masks"] = torch.zeros(1, 100, 100, dtype=dtype)
    found["masks"][0, :, :50] = 1
    image = grey(100, 100, level=200)
    picture = draw_detections([image], [NOTHING], [found], NAMES, cell_px=100)
    left, right = picture[-58, 8 + 25].astype(int), picture[-58, 8 + 75].astype(int)
    assert np.abs(left - (0.55 * 200 + 0.45 * color(1))).max() <= 1
    assert np.abs(right - 200).max() <= 1
    assert np.asarray(image).min() == 200  # the image itself stays as it is


def test_the_surest_detection_is_on_top_whatever_the_order() -> None:
    box = (10.0, 10.0, 90.0, 90.0)
    for scores in ((0.9, 0.6), (0.6, 0.9)):
        found = objects(box, box, labels=(0, 1), scores=scores)
        picture = draw_detections([grey(100, 100)], [NOTHING], [found], NAMES, cell_px=200)
        counts = [count_near(picture[100:], color(label)) for label in (0, 1)]  # below the labels
        assert counts.index(max(counts)) == scores.index(0.9)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_ground_truth_is_seen_on_any_ground_and_on_an_exact_detection(level: int) -> None:
    box = (20.0, 20.0, 80.0, 80.0)
    truth, exact = objects(box, labels=(0,)), objects(box, labels=(0,), scores=(0.9,))

    def drawn(truth: dict[str, Any], found: dict[str, Any]) -> np.ndarray:
        return draw_detections([grey(100, 100, level)], [truth], [found], NAMES, cell_px=200)

    for found in (NOTHING, exact):
        changes = np.abs(drawn(truth, found).astype(int) - drawn(NOTHING, found)).max(axis=-1)
        assert (changes > 60).sum() > 150
    below_the_label = drawn(truth, exact)[100:]
    assert count_near(below_the_label, color(0), tolerance=40) > 80


def test_cells_are_equal_and_just_large_enough() -> None:
    sizes = [(64, 48), (640, 480), (100, 30)]
    picture = draw_detections(
        [grey(*size) for size in sizes], [NOTHING] * 3, [NOTHING] * 3, NAMES, columns=2, cell_px=200
    )
    # two columns and rows of 200 x 150 pixels, gaps of 8, a line of text
    assert picture.shape == (2 * 150 + 2 * 8 + 28, 2 * 200 + 3 * 8, 3) and picture.dtype == np.uint8
    upright = draw_detections([grey(30, 60)], [NOTHING], [NOTHING], NAMES, cell_px=200)
    assert upright.shape == (200 + 8 + 28, 100 + 2 * 8, 3)


def test_labels_cover_no_other_and_small_boxes_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = [(10.0 + 3 * number, 10.0, 90.0, 90.0) for number in range(20)]
    tiny = (50.0, 50.0, 53.0, 53.0)
    count = len(crowded)
    scores = tuple(0.99 - 0.01 * number for number in range(count + 1))
    found = objects(*crowded, tiny, labels=(2,) * (count + 1), scores=scores)
    (labels,) = texts(monkeypatch, [grey(100, 100)], [NOTHING], [found], NAMES, cell_px=400)[1:]
    assert 3 <= len(labels) < count and labels[0] == "baseball glove 0.99"
    assert f"baseball glove {scores[-1]:.2f}" not in labels


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="one of each per image, for one image or more; got 0, 0, 0"):
        draw_detections([], [], [], NAMES)
    with pytest.raises(ValueError, match="got 1, 2, 1"):
        draw_detections([grey(9, 9)], [NOTHING] * 2, [NOTHING], NAMES)


def test_the_truth_of_an_image_is_its_objects_without_crowds() -> None:
    boxes = [(1, [10, 20, 30, 40]), (3, [0, 0, 5, 5]), (1, [1.5, 2, 3, 4]), (1, [0, 0, 99, 99])]
    annotations = [
        {"image_id": image, "category_id": category, "bbox": box, "iscrowd": int(box[2] == 99)}
        for (image, box), category in zip(boxes, (18, 1, 90, 1), strict=True)
    ]
    one, two, none = truths_of({"annotations": annotations}, [1, 3, 2], [1, 18, 90])
    assert one["boxes"].tolist() == [[10, 20, 40, 60], [1.5, 2, 4.5, 6]] and one["labels"].tolist() == [1, 2]
    assert two["boxes"].tolist() == [[0, 0, 5, 5]] and two["boxes"].dtype == torch.float32
    assert none["boxes"].shape == (0, 4) and none["labels"].dtype == torch.int64
