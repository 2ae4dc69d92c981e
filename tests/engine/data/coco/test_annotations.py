import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import DataError
from engine.data.coco.annotations import CocoAnnotations
from tests.engine.data.coco.coco_files import split_content

Content = dict[str, Any]


def open_content(
    folder: Path, content: Content, with_masks: bool = True, scored: bool = True
) -> CocoAnnotations:
    path = folder / "instances_x.json"
    path.write_text(json.dumps(content))
    return CocoAnnotations(path, with_masks=with_masks, scored=scored)


def test_objects_are_those_of_the_image_without_crowds(tmp_path: Path) -> None:
    content = split_content(100, 12)
    content["annotations"] = content["annotations"][::-1]  # the file's order is not the images'
    annotations = open_content(tmp_path, content)
    assert len(annotations) == 12
    classes = {1: 0, 7: 1, 90: 2}
    for index, image in enumerate(content["images"]):
        expected = [
            annotation
            for annotation in content["annotations"]
            if annotation["image_id"] == image["id"] and not annotation["iscrowd"]
        ]
        objects = annotations.objects(index)
        assert objects.labels.tolist() == [classes[found["category_id"]] for found in expected]
        corners = [[x, y, x + width, y + height] for x, y, width, height in (a["bbox"] for a in expected)]
        assert objects.boxes.tolist() == corners
        assert len(objects.segmentations) == len(expected)
        assert annotations.has_objects[index] == bool(expected)
        assert annotations.file_name(index) == image["file_name"]


def test_classes_are_the_categories_by_rising_id(tmp_path: Path) -> None:
    annotations = open_content(tmp_path, split_content(100, 3))
    assert annotations.category_ids == [1, 7, 90]
    assert annotations.classes.names == ("cup", "tree", "comb")


def test_without_masks_segmentations_are_not_looked_at(tmp_path: Path) -> None:
    content = split_content(100, 3)
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    annotations = open_content(tmp_path, content, with_masks=False)
    assert annotations.objects(2).segmentations == [] and len(annotations.objects(2).labels) == 1


@pytest.mark.parametrize("scored", [False, True])
def test_what_can_be_known_without_the_file_is_not_asked_of_it(
    tmp_path: Path, scored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = split_content(102, 3)
    expected = open_content(tmp_path, whole, scored=scored)
    content = copy.deepcopy(whole)
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"], annotation["id"]
        annotation["image_id"] = float(annotation["image_id"])  # as pandas and JavaScript write it
    for image in content["images"]:
        image |= {"id": float(image["id"]), "width": float(image["width"])}
    capsys.readouterr()
    found = open_content(tmp_path, content, scored=scored)
    assert found.image_ids.tolist() == expected.image_ids.tolist()
    assert found.image_ids.dtype == np.int64 and found.widths.dtype == np.int64
    for index in range(3):
        assert np.array_equal(found.objects(index).boxes, expected.objects(index).boxes)
    told = capsys.readouterr().out
    assert ("4 of 4 annotations have no area" in told) == scored and told.count("\n") == scored


def test_ids_may_begin_with_0_and_annotations_may_share_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = split_content(102, 3)
    for number, image in enumerate(content["images"]):
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                annotation |= {"image_id": number, "category_id": 0, "id": number}
        image["id"] = number
    content["categories"] = [{"id": 0, "name": "cup"}]
    annotations = open_content(tmp_path, content)
    assert annotations.category_ids == [0] and annotations.image_ids.tolist() == [0, 1, 2]
    assert [len(annotations.objects(index).labels) for index in range(3)] == [1, 2, 1]
    told = capsys.readouterr().out  # the two objects of image 1
    assert "1 of 4 annotations have the id of another one" in told and "annotation 1 of image 1" in told


def first(key: str, value: Any, of: str = "annotations") -> Callable[[Content], None]:
    """Return a change of the first entry of a list; None takes the key away."""

    def change(content: Content) -> None:
        if value is None:
            del content[of][0][key]
        else:
            content[of][0][key] = value

    return change


def image(key: str, value: Any) -> Callable[[Content], None]:
    return first(key, value, of="images")


def rle(**fields: Any) -> Callable[[Content], None]:
    return first("segmentation", {"size": [40, 30], "counts": [1200], **fields})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "there is no list 'images'"),
        (lambda content: content.update(annotations={}), "there is no list 'annotations'"),
        (lambda content: content.pop("categories"), "there is no list 'categories'"),
        (lambda content: content["images"].clear(), "not a single image"),
        (lambda content: content["images"].append(7), "image number 13 of the list: expected an object .* 7"),
        (image("id", None), "image number 1 of the list: id: expected a whole number, got nothing"),
        (image("id", 1010), "image 1010: another one has the same id"),
        (image("file_name", 3), "image 1000: file_name: expected a text, got 3"),
        (image("width", 0), "image 1000: width: expected 1 or more pixels, got 0"),
        (image("height", 40.5), "image 1000: height: expected a whole number, got 40.5"),
        (image("id", "1000"), "image 1000: id: expected a whole number, got '1000'"),
        (image("height", None), "image 1000: height: expected a whole number, got nothing"),
        (first("id", 90, "categories"), "OK"),
        (first("id", 7, "categories"), "category 7: another one has the same id"),
        (first("name", None, "categories"), "category 90: name: expected a text, got nothing"),
        (first("id", "a"), "OK"),
        (first("id", ["a"]), "OK"),
        (first("image_id", 5), "annotation 1: image_id: there is no image with this id, got 5"),
        (first("image_id", 10**9), "annotation 1: image_id: there is no image"),
        (first("category_id", 2), "annotation 1: category_id: there is no category with this id, got 2"),
        (first("category_id", None), "annotation 1: category_id: expected a whole number, got nothing"),
        (first("bbox", [1, 2, 3]), r"annotation 1: bbox: expected 4 finite numbers, got \[1, 2, 3\]"),
        (first("bbox", [1, 2, 3, "4"]), "annotation 1: bbox: expected 4 finite numbers"),
        (first("bbox", [1, 2, float("nan"), 4]), "annotation 1: bbox: expected 4 finite numbers"),
        (first("bbox", [1, 2, 3, 10**400]), "annotation 1: bbox: expected 4 finite numbers"),
        (first("bbox", None), "annotation 1: bbox: expected 4 finite numbers, got nothing"),
        (first("bbox", [1, 2, -3, 4]), "annotation 1: bbox: .* width and height of 0 or more"),
        (first("area", "big"), "annotation 1: area: expected a finite number, got 'big'"),
        (first("iscrowd", "no"), "annotation 1: iscrowd: expected a whole number, got 'no'"),
        (first("segmentation", "all"), "annotation 1: segmentation: expected a list of polygons .* 'all'"),
        (first("segmentation", [[1, 2, 3, 4, 5, 6, 7]]), "6, 8, 10 .* got 7 numbers"),
        (first("segmentation", [[1, 2, 3]]), "annotation 1: segmentation: a polygon has .* got 3 numbers"),
        (first("segmentation", [1, 2, 3, 4, 5, 6]), "annotation 1: segmentation: a polygon has .* got 1"),
        (first("segmentation", [[1, 2, 3, 4, 5, "6"]]), "segmentation: expected numbers only"),
        (first("segmentation", [[1, 2, 3, 4, 5, float("inf")]]), "expected coordinates in pixels, got inf"),
        (first("segmentation", [[1, 2, 3, 4, 5, -1e9]]), "expected coordinates in pixels, got -1000000000"),
        (rle(), "OK"),
        (
            rle(size=[30, 40]),
            r"annotation 1: segmentation: the RLE's size is \[30, 40\], its image's .*40, 30",
        ),
        (rle(counts=[1000, 100]), "the RLE's counts add up to 1100 pixels, its image has 1200"),
        (rle(counts=[1300, -100]), "the RLE's counts are no numbers of pixels"),
        (rle(counts=None), "the RLE's counts are no numbers of pixels: None"),
        (rle(counts="o"), "the RLE's counts are no numbers of pixels: 'o'"),
        (rle(counts="a b"), "the RLE's counts are no numbers of pixels: 'a b'"),
        (rle(counts=""), "the RLE's counts are no numbers of pixels: ''"),
        (rle(counts="oooooooo0"), "the RLE's counts are no numbers of pixels"),
        (rle(counts="520"), "the RLE's counts add up to 7 pixels, its image has 1200"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    content = copy.deepcopy(split_content(100, 12))
    change(content)
    if message == "OK":
        open_content(tmp_path, content)
        return
    with pytest.raises(DataError, match=f"instances_x.json: .*{message}") as caught:
        open_content(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "instances_x.json"
    path.write_text(json.dumps(split_content(100, 3))[:-20])
    with pytest.raises(DataError, match="instances_x.json: not a whole JSON file: .*; copy or download"):
        CocoAnnotations(path, with_masks=False, scored=False)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="instances_x.json: not a whole JSON file"):
        CocoAnnotations(path, with_masks=False, scored=False)
    path.write_text("[]")
    with pytest.raises(DataError, match="instances_x.json: expected an object"):
        CocoAnnotations(path, with_masks=False, scored=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_be_encoded_as_on_windows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "instances_x.json"
    path.write_text(json.dumps(split_content(100, 3)), encoding=encoding)
    assert len(CocoAnnotations(path, with_masks=True, scored=True)) == 3


def test_a_missing_file_is_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instances_y.json: there is no such file; expected COCO's layout"):
        CocoAnnotations(tmp_path / "instances_y.json", with_masks=False, scored=False)


def test_a_box_without_width_is_allowed(tmp_path: Path) -> None:
    """The official train2017 has two such boxes."""
    content = split_content(100, 3)
    content["annotations"][0]["bbox"][2] = 0
    boxes = open_content(tmp_path, content).objects(0).boxes
    assert np.array_equal(boxes[:, 0], boxes[:, 2])
