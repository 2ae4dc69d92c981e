"""What the user is told of annotations that are no targets, and of boxes that cannot be meant so."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import DataError
from engine.data.coco import CocoOptions, build_coco_data
from engine.data.coco.annotations import CocoAnnotations
from tests.engine.data.coco.coco_files import polygon_object
from tests.photographs import needs_photographs, unpack

WIDTH, HEIGHT = 400, 300
Change = Callable[[dict[str, Any]], object]


def content(count: int = 20) -> dict[str, Any]:
    """Return a file of `count` objects, five in an image, all of them well inside."""
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
        for number in range(100, 100 + -(-count // 5))
    ]
    annotations = [
        {"id": number, "image_id": 100 + number // 5, "category_id": 1, "area": 900.0, "iscrowd": 0}
        | polygon_object(number, 60 + 20 * (number % 3), 50)
        for number in range(count)
    ]
    for annotation in annotations:
        annotation["bbox"][0] += 200
        annotation["segmentation"] = [
            (np.reshape(polygon, (-1, 2)) + [200, 0]).ravel().tolist()
            for polygon in annotation["segmentation"]
        ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}


def opened(folder: Path, content: dict[str, Any], **wanted: bool) -> CocoAnnotations:
    path = folder / "instances_x.json"
    path.write_text(json.dumps(content))
    return CocoAnnotations(path, **{"with_masks": True, "scored": True, **wanted})


def counts(annotations: CocoAnnotations) -> list[int]:
    return [len(annotations.objects(index).labels) for index in range(len(annotations))]


def test_of_a_file_of_targets_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert opened(tmp_path, content()).targets == ""
    assert capsys.readouterr().out == ""


def test_a_file_of_crowds_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CVAT writes each mask with iscrowd: 1."""
    crowded = content()
    for annotation in crowded["annotations"][2:]:
        annotation["iscrowd"] = 1
    annotations = opened(tmp_path, crowded)
    assert counts(annotations) == [2, 0, 0, 0]
    assert (
        "2 of the 20 annotations of instances_x.json are targets; no targets: 18 crowds"
        in annotations.targets
    )
    (told,) = capsys.readouterr().out.splitlines()
    assert "instances_x.json: 18 of 20 annotations are crowds (iscrowd: 1)" in told
    assert "set iscrowd to 0" in told and "annotation 2 of image 100" in told and "annotation 6" not in told


def test_a_few_crowds_are_as_in_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crowded = content()
    crowded["annotations"][3]["iscrowd"] = True
    assert "19 of the 20" in opened(tmp_path, crowded).targets
    assert capsys.readouterr().out == ""


def moved(rows: list[int], x: float) -> Change:
    def change(annotations: Any) -> None:
        for row in rows:
            annotations[row]["bbox"][0] += x

    return change


def each(rows: list[int], **values: Any) -> Change:
    def change(annotations: Any) -> None:
        for row in rows:
            annotations[row] |= values

    return change


@pytest.mark.parametrize(
    ("change", "targets", "told"),
    [
        (moved([1, 7], 300), [4, 4, 5, 5], "2 of 20 annotations have a box outside of their picture"),
        (moved([1, 7], -900), [4, 4, 5, 5], "2 of 20 annotations have a box outside"),
        (
            moved([1, 7], 180),
            [5, 5, 5, 5],
            "2 of 20 annotations have a box that leaves the picture, by up to",
        ),
        (each([1, 7], segmentation=[]), [4, 4, 5, 5], "2 of 20 annotations have no segmentation"),
        (each([1, 7], segmentation=None), [4, 4, 5, 5], "2 of 20 annotations have no segmentation"),
        (each([1, 7], segmentation=[[1, 2, 3, 4], []]), [4, 4, 5, 5], "2 of 20 annotations have no segment"),
        (each([1, 7], ignore=1), [5, 5, 5, 5], "2 of 20 annotations have 'ignore'.*they count as objects"),
        (each([1, 7], area=0), [5, 5, 5, 5], "2 of 20 annotations have no area"),
        (each([1, 7], id=0), [5, 5, 5, 5], "2 of 20 annotations have the id of another one"),
    ],
)
def test_what_is_unusual_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, targets: list[int], told: str
) -> None:
    changed = content()
    change(changed["annotations"])
    annotations = opened(tmp_path, changed)
    assert counts(annotations) == targets
    left = sum(targets)
    assert annotations.targets == "" if left == 20 else annotations.targets.startswith(f"{left} of the 20")
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and "instances_x.json" in output
    assert "annotation 7 of image 101" in output or "id of another" in told
    assert re.search(told, output)


@pytest.mark.parametrize(
    "other",
    [
        lambda x, y: (x / WIDTH, y / HEIGHT),  # fractions
        lambda x, y: (HEIGHT - y, x),  # of the picture turned
        lambda x, y: (x / 2, y / 2),  # of a smaller picture
    ],
)
def test_outlines_of_another_picture_than_the_boxes_are_named(
    tmp_path: Path, other: Callable[[float, float], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = content()
    for annotation in changed["annotations"][5:]:
        (polygon, *_) = annotation["segmentation"]
        annotation["segmentation"] = [
            [side for corner in np.reshape(polygon, (-1, 2)).tolist() for side in other(*corner)]
        ]
    opened(tmp_path, changed)
    (told,) = capsys.readouterr().out.splitlines()
    assert "15 of 20 annotations have a segmentation that begins outside of the box" in told
    assert "annotation 5 of image 101" in told
    opened(tmp_path, changed, with_masks=False)
    assert capsys.readouterr().out == ""


def test_boxes_left_empty_by_another_program_are_no_fractions(tmp_path: Path) -> None:
    changed = content()
    each([2, 3], bbox=[0, 0, 0, 0])(changed["annotations"])
    assert "2 without width or height" in opened(tmp_path, changed).targets


def test_the_reasons_are_counted_once_each(tmp_path: Path) -> None:
    changed = content()
    rows = changed["annotations"]
    each([0], iscrowd=1, segmentation=None)(rows)
    moved([0, 1], 5000)(rows)
    each([1, 2], segmentation=[])(rows)
    rows[3]["bbox"][2] = 0
    rows[4]["bbox"][3] = 0
    annotations = opened(tmp_path, changed)
    assert annotations.targets == (
        "15 of the 20 annotations of instances_x.json are targets; no targets: 1 crowds (iscrowd), 2 without "
        "width or height (annotation 3 of image 100, annotation 4 of image 100), 1 outside of their picture "
        "(annotation 1 of image 100), 1 without a segmentation (annotation 2 of image 100)"
    )
    # As detectron2 counts images: a flat box is left out later, and makes its image one with an object.
    assert annotations.has_objects.tolist() == [True] * 4 and counts(annotations) == [2, 5, 5, 5]
    assert "without a segmentation" not in opened(tmp_path, changed, with_masks=False).targets


def test_an_image_whose_objects_are_all_outside_has_none(tmp_path: Path) -> None:
    changed = content()
    moved([0, 1, 2, 3, 4], 900)(changed["annotations"])
    assert opened(tmp_path, changed).has_objects.tolist() == [False, True, True, True]


def test_a_box_may_end_a_pixel_beyond_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = content()
    changed["annotations"][0]["bbox"] = [-1, -0.5, WIDTH + 2, HEIGHT + 1]
    assert opened(tmp_path, changed).targets == "" and capsys.readouterr().out == ""


def corners(bbox: list[float]) -> list[float]:
    x, y, width, height = bbox
    return [x, y, x + width, y + height]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (corners, r"20 of 20 boxes leave their pictures; all of them would fit as corners x1, y1, x2, y2"),
        (
            lambda box: [side / 400 for side in box],
            "20 of 20 boxes lie in the picture's first two pixels: are",
        ),
    ],
)
def test_boxes_in_other_formats_are_refused(tmp_path: Path, other: Callable[[Any], Any], told: str) -> None:
    changed = content()
    for annotation in changed["annotations"]:
        annotation["bbox"] = other(annotation["bbox"])
    with pytest.raises(DataError, match=f"instances_x.json: {told}.* annotation 0 of image 100"):
        opened(tmp_path, changed)


@pytest.mark.parametrize(
    ("count", "box", "told"),
    [
        (20, [-20, 50, 60, 70], "20 of 20 annotations have a box that leaves the picture, by up to 20 px"),
        (20, [100, -20, 110, 70], "20 of 20 annotations have a box that leaves the picture, by up to 20 px"),
        (
            4,
            [250, 100, 300, 200],
            "4 of 4 annotations have a box that leaves .*all of them would fit as corn",
        ),
        (4, [0, 0, 1, 2], ""),
    ],
)
def test_boxes_that_may_be_meant_so_are_not_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, box: list[int], told: str
) -> None:
    changed = content(count)
    each(list(range(count)), bbox=box)(changed["annotations"])
    assert sum(counts(opened(tmp_path, changed, with_masks=False))) == count
    assert re.search(told, output := capsys.readouterr().out) and bool(told) == bool(output)


def test_an_annotation_without_id_is_named_by_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = content()
    del changed["annotations"][7]["id"]
    moved([7], 300)(changed["annotations"])
    opened(tmp_path, changed)
    assert "annotation number 8 of the list of image 101" in capsys.readouterr().out


@needs_photographs
def test_coco_itself_is_announced_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = unpack("coco_gpu.tar", tmp_path)
    data = build_coco_data(CocoOptions(root=str(root), workers=0), with_masks=True, seed=0)
    assert data.train.annotations.targets.startswith("2719 of the 2747 annotations of instances_train2017")
    assert data.train.annotations.targets.endswith("no targets: 28 crowds (iscrowd)")
    assert capsys.readouterr().out == ""
