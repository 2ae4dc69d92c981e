import numpy as np
import pytest
from pycocotools import mask as coco_mask

from engine.data.coco.outlines import Mask, outlines, run_lengths, segmentation, signed_area

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def mask(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def decoded(segments: object, size: tuple[int, int]) -> np.ndarray:
    """The pixels that COCO's own code makes of a segmentation."""
    encoded = coco_mask.frPyObjects(segments, *size)
    return coco_mask.decode(coco_mask.merge(encoded) if isinstance(encoded, list) else encoded).astype(bool)


def test_cocos_code_gives_back_the_mask_to_the_pixel() -> None:
    random = np.random.RandomState(0)
    forms = set()
    for _ in range(300):
        pixels = random.random_sample(random.randint(1, 12, 2)) < random.random_sample()
        for segments in (segmentation(pixels), run_lengths(pixels)):
            forms.add(type(segments))
            if segments:  # COCO's code takes no empty list
                assert np.array_equal(decoded(segments, pixels.shape), pixels)
            else:
                assert not pixels.any()
    assert forms == {list, dict}


def test_a_polygon_has_the_corners_of_the_pixels_only() -> None:
    assert segmentation(mask(".....", ".###.", ".###.")) == [[1, 1, 4, 1, 4, 3, 1, 3]]
    assert segmentation(mask("#.", "##")) == [[0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 0, 2]]


def test_pixels_that_touch_at_a_corner_are_apart() -> None:
    assert segmentation(mask("#.", ".#")) == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    assert len(outlines(mask(".#", "#."))) == 2


def test_a_mask_with_a_hole_becomes_run_lengths() -> None:
    ring = mask("###", "#.#", "###")
    assert sorted(map(signed_area, outlines(ring))) == [-1, 9]
    assert segmentation(ring) == {"size": [3, 3], "counts": [0, 4, 1, 4]}
    assert isinstance(segmentation(mask("###", "#..", "###")), list)


@pytest.mark.parametrize(
    ("rows", "counts"), [(("..", ".#"), [3, 1]), (("#.", ".."), [0, 1, 3]), (("..", ".."), [4])]
)
def test_run_lengths_begin_with_what_is_not_the_object(rows: tuple[str, ...], counts: list[int]) -> None:
    assert run_lengths(mask(*rows)) == {"size": [2, 2], "counts": counts}
