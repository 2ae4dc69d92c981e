import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data.coco.annotations import Objects
from engine.data.coco.transforms import ResizeRule, to_input, to_target

RULE = ResizeRule(shorter_side_px=800, longer_side_px=1333)
sides = st.integers(1, 3000)


def boxed(*boxes: list[float]) -> Objects:
    """Return objects whose polygons are their boxes, clipped or not."""
    outlines = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Objects(array, np.arange(len(boxes), dtype=np.int64), outlines)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (800, 1067)),  # 1066.67
        (640, 480, (1067, 800)),
        (427, 640, (800, 1199)),  # 1199.06
        (382, 640, (796, 1333)),  # 795.63: the longer side sets the factor
        (640, 382, (1333, 796)),
        (500, 500, (800, 800)),
        (1600, 1601, (800, 801)),  # 800.5: halves up
        (1, 3000, (1, 1333)),  # never nothing
    ],
)
def test_sizes_after_resizing(height: int, width: int, expected: tuple[int, int]) -> None:
    assert RULE.size(height, width) == expected


@given(sides, sides, st.integers(1, 1000), st.integers(0, 1000))
def test_the_rule_of_both_sides(height: int, width: int, shorter: int, more: int) -> None:
    new = ResizeRule(shorter, shorter + more).size(height, width)
    assert max(new) <= shorter + more
    assert min(new) == shorter or max(new) == shorter + more
    factor = min(shorter / min(height, width), (shorter + more) / max(height, width))
    exact = np.array([height, width]) * factor
    assert np.all(np.abs(exact - new) <= 0.5 + 1e-6) or min(new) == 1


coordinates = st.integers(0, 32000).map(lambda number: number / 64)  # free of rounding


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(4, 10), st.floats(4, 10)), min_size=1),
    st.booleans(),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
)
def test_masks_agree_with_boxes_within_a_pixel(
    rows: list[tuple[float, ...]], mirrored: bool, size: tuple[int, int]
) -> None:
    objects = boxed(*[[x, y, x + width, y + height] for x, y, width, height in rows])
    target = to_target(objects, (30, 40), size, mirrored=mirrored, with_masks=True)
    assert len(target["masks"]) == len(rows)
    for mask, box in zip(target["masks"], target["boxes"], strict=True):
        down, right = mask.nonzero().unbind(1)
        around = torch.stack([right.min(), down.min(), right.max() + 1, down.max() + 1])
        assert (around - box).abs().max() <= 1.0


def test_picture_box_and_mask_are_mirrored_together() -> None:
    bright = np.zeros((30, 40, 3), dtype=np.uint8)
    bright[5:15, 4:12] = 255
    size = (60, 80)
    for mirrored, (left, right) in ((False, (8, 24)), (True, (56, 72))):
        target = to_target(boxed([4, 5, 12, 15]), (30, 40), size, mirrored=mirrored, with_masks=True)
        image = to_input(Image.fromarray(bright), size, mirrored)
        assert target["boxes"].tolist() == [[left, 10, right, 30]]
        expected = torch.zeros(60, 80, dtype=torch.uint8)
        expected[10:30, left:right] = 1
        assert torch.equal(target["masks"][0], expected)
        # bilinear enlargement shades the outermost pixels
        assert torch.equal(image.float().mean(0) > 127.5, expected.bool())


def test_boxes_are_clipped_and_those_of_nothing_left_out() -> None:
    objects = boxed(
        [-5, -5, 10, 10],
        [30, 20, 60, 60],
        [3, 3, 3, 9],  # no width
        [3, 9, 9, 9],  # no height
        [41, 3, 50, 9],  # beside the picture
        [1, 2, 3, 4],
    )
    target = to_target(objects, (30, 40), (60, 80), mirrored=False, with_masks=True)
    assert target["boxes"].tolist() == [[0, 0, 20, 20], [60, 40, 80, 60], [2, 4, 6, 8]]
    assert target["boxes"].dtype == torch.float32 and target["labels"].dtype == torch.int64
    assert target["labels"].tolist() == [0, 1, 5]
    assert target["masks"].shape == (3, 60, 80)
    assert target["masks"].sum((1, 2)).tolist() == [400, 400, 16]


def test_a_sliver_never_loses_its_last_width_to_rounding() -> None:
    for width in (1e-4, 2e-5, 1.1e-5, 1e-5):
        objects = boxed([0, 3, width, 9], [40 - width, 3, 40, 9])
        for mirrored in (False, True):
            boxes = to_target(objects, (30, 40), (1000, 1333), mirrored=mirrored, with_masks=False)["boxes"]
            assert (boxes[:, 2] > boxes[:, 0]).all()


def test_nothing_at_all_is_a_target_too() -> None:
    target = to_target(boxed(), (30, 40), (60, 80), mirrored=True, with_masks=True)
    assert {name: tuple(value.shape) for name, value in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 60, 80),
    }
    assert "masks" not in to_target(boxed(), (30, 40), (60, 80), mirrored=True, with_masks=False)
