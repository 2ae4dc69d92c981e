"""A small data set in COCO's layout: every kind of segmentation, crowds, and images with nothing in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tests.engine.image_files import picture

# Neither in order nor without gaps, as COCO's 1 .. 90 are.
CATEGORIES = [{"id": 90, "name": "comb"}, {"id": 1, "name": "cup"}, {"id": 7, "name": "tree"}]
SIZES = [(40, 30), (30, 40), (32, 32)]  # width, height in pixels
Json = dict[str, Any]


def polygon_object(number: int, width: int, height: int) -> Json:
    """Return box and segmentation of an object of two polygons inside a picture."""
    left, top = 2.25 + number % 5, 3.5 + number % 4
    right, bottom = width - 4.5 - number % 3, height - 2.75
    middle = (left + right) / 2
    triangle = [left, top, middle, top, left, bottom - 5]
    square = [middle, top + 2, right, top + 2, right, bottom, middle, bottom]
    return {"bbox": [left, top, right - left, bottom - top], "segmentation": [triangle, square]}


def run_object(number: int, width: int, height: int, as_text: bool = False) -> Json:
    """Return box and RLE of an object with a hole, as a list or as text."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[4:20, 3 + number % 5 : 22] = 1
    pixels[8:12, 10:14] = 0
    rle = coco_mask.encode(np.asfortranarray(pixels))
    box = coco_mask.toBbox(rle).tolist()
    if as_text:
        return {"bbox": box, "segmentation": {"size": [height, width], "counts": rle["counts"].decode()}}
    columns = pixels.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(columns)) + 1).tolist(), len(columns)]
    return {"bbox": box, "segmentation": {"size": [height, width], "counts": np.diff(edges).tolist()}}


def contents_of(number: int, width: int, height: int) -> list[Json]:
    """Return what is in image `number`: of six kinds, the last two of which have nothing to learn."""
    polygons, runs = polygon_object(number, width, height), run_object(number, width, height)
    crowd = {**runs, "iscrowd": 1}
    return [
        [polygons],
        [polygons, runs],
        [run_object(number, width, height, as_text=True)],
        [crowd, polygons],
        [crowd],
        [],
    ][number % 6]


def split_content(first: int, count: int) -> Json:
    """Return an annotation file about images first .. first + count - 1 with ids ten times that."""
    images: list[Json] = []
    annotations: list[Json] = []
    for number in range(first, first + count):
        width, height = SIZES[number % len(SIZES)]
        name = f"{number:012d}.png"
        images.append({"id": 10 * number, "file_name": name, "width": width, "height": height})
        for found in contents_of(number, width, height):
            box = found["bbox"]
            common = {"id": len(annotations) + 1, "image_id": 10 * number, "iscrowd": 0}
            category = CATEGORIES[len(annotations) % len(CATEGORIES)]["id"]
            annotations.append({**common, "category_id": category, "area": box[2] * box[3], **found})
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def annotation_path(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def write_split(root: Path, split: str, content: Json) -> Path:
    """Write the annotation file, and every picture it names; return the file."""
    (root / split).mkdir(parents=True, exist_ok=True)
    path = annotation_path(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    for image in content["images"]:
        size = image["width"], image["height"]
        picture(image["id"], size).save(root / split / image["file_name"])
    return path


def write_coco(root: Path, train_images: int = 18, val_images: int = 7) -> Path:
    """Write train2017 (a third of it without objects) and val2017; return `root`."""
    write_split(root, "train2017", split_content(100, train_images))
    write_split(root, "val2017", split_content(300, val_images))
    return root
