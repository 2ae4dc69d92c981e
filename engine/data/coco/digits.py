"""A small data set in COCO's layout that needs no download: scikit-learn's handwritten digits on canvases.

Canvases of 128 x 96 and 96 x 128 pixels hold one to four bright digits, upright, 18 to 58 pixels high, on a
dim coloured ground. Later digits cover earlier ones: masks are the visible pixels, boxes are those of the
masks. At least 75 % of every digit can be seen: one that would hide more of another is put elsewhere, or left
out. Some canvases are empty, some also hold a crowd: a heap of small digits of one class in one annotation
with iscrowd 1. Training and validation share no scan.
"""

import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from engine.data.classes import Classes
from engine.data.coco.canvas import Canvas, DrawnObject, Pixels
from engine.data.coco.masks import encode_masks
from engine.data.digits import DigitImages, open_digits
from engine.data.source import DataError
from engine.files import TEMPORARY_SUFFIX

CANVASES = {"train2017": 400, "val2017": 80}
# Change it with anything that changes a picture or an annotation: a folder of another version is refused.
VERSION = 2
MARKER = "GENERATED"

_SIDES = ((128, 96), (96, 128))  # width, height in pixels
_MAX_DIGITS = 4
_HEIGHTS = (24, 64)  # of digits with the margin around them, in pixels
_CROWD_SIZE, _CROWD_HEIGHTS, _CROWD_SIDES = 9, (15, 19), (44, 36)
_EMPTY_EVERY, _CROWD_EVERY = 20, 20  # canvases
_ATTEMPTS = 20  # to place a digit
_DIMMEST_INK, _BRIGHTEST_GROUND = 150, 90  # of 255

Random = np.random.RandomState  # numpy promises that the numbers of this generator never change


def write_digits(folder: str | Path) -> Path:
    """Write 480 canvases (5 MB, in seconds, the same on every machine) to `folder` unless they are there.

    Returns the folder, which is there as a whole or not at all; several processes may write at once. Raises
    DataError where it holds something else, or what another version of this program wrote.
    """
    folder = Path(folder).absolute()
    if _is_written(folder):
        return folder
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    temporary.mkdir(parents=True)
    try:
        _write_all(temporary)
        os.rename(temporary, folder)
    except OSError:
        if not _is_written(folder):  # else another process was first, with the same files
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def draw_canvases(split: str, source: DigitImages) -> Iterator[Canvas]:
    """Yield the canvases of train2017 or val2017, with digits of `source`, each at most once if it can be."""
    seed = list(CANVASES).index(split)
    scans = itertools.cycle(Random(seed).permutation(len(source)).tolist())
    for index in range(CANVASES[split]):
        random = Random([seed, index])
        canvas = Canvas(_ground(*_SIDES[random.randint(len(_SIDES))], random))
        if index % _EMPTY_EVERY != _EMPTY_EVERY - 1:
            if index % _CROWD_EVERY == _CROWD_EVERY // 2:
                _add_crowd(canvas, source, random)
            for scan in itertools.islice(scans, random.randint(1, _MAX_DIGITS + 1)):
                _add_digit(canvas, source, scan, random)
        yield canvas


def _add_digit(canvas: Canvas, source: DigitImages, scan: int, random: Random) -> None:
    """Draw a digit at the first place tried where it hides no other too much, or nowhere."""
    ink, color = _stamp(source, scan, _HEIGHTS, random), _color(random)
    for _ in range(_ATTEMPTS):
        x, y = _place(ink, (0, 0), canvas.pixels.shape[1::-1], random)
        if not canvas.hides_too_much(ink, x, y):
            canvas.draw(DrawnObject(int(source.labels[scan])), [(ink, x, y)], color)
            return


def _add_crowd(canvas: Canvas, source: DigitImages, random: Random) -> None:
    """Draw a heap of small digits of one class, in one colour, somewhere."""
    label = random.randint(10)
    scans = random.choice(np.flatnonzero(source.labels == label), _CROWD_SIZE)
    inks = [_stamp(source, int(scan), _CROWD_HEIGHTS, random) for scan in scans]
    corner = _place(np.empty(_CROWD_SIDES[::-1], np.uint8), (0, 0), canvas.pixels.shape[1::-1], random)
    stamps = [(ink, *_place(ink, corner, _CROWD_SIDES, random)) for ink in inks]
    canvas.draw(DrawnObject(label, is_crowd=True), stamps, _color(random))


def _place(ink: Pixels, corner: tuple[int, ...], sides: tuple[int, ...], random: Random) -> tuple[int, int]:
    x, y = (
        first + random.randint(side - own + 1)
        for first, side, own in zip(corner, sides, ink.shape[::-1], strict=True)
    )
    return x, y


def _stamp(source: DigitImages, scan: int, heights: tuple[int, int], random: Random) -> Pixels:
    """Return a scan as ink, uint8 (h, w): enlarged, four fifths to once as wide as high, with firm edges."""
    height = random.randint(heights[0], heights[1] + 1)
    width = height * random.randint(80, 101) // 100
    framed = ImageOps.expand(source.image(scan).convert("L"), border=1)  # ends of strokes become round
    # The frame is enlarged along with the 8 x 8 pixels, then cut off but for half a pixel.
    smooth = framed.resize((width, height), Image.Resampling.BICUBIC, box=(0.5, 0.5, 9.5, 9.5))
    return np.clip((np.asarray(smooth, np.int64) - 70) * 4, 0, 255).astype(np.uint8)


def _color(random: Random) -> np.ndarray:
    return random.randint(_DIMMEST_INK, 256, 3)


def _ground(width: int, height: int, random: Random) -> Pixels:
    coarse = random.randint(0, _BRIGHTEST_GROUND, (3, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _write_all(folder: Path) -> None:
    (folder / "annotations").mkdir()
    first_id = 1
    for (split, count), scans in zip(CANVASES.items(), ("train", "val"), strict=True):
        source, classes = open_digits(scans)
        (folder / split).mkdir()
        content = _content(classes)
        for image_id, canvas in enumerate(draw_canvases(split, source), first_id):
            name = f"{image_id:012d}.png"
            Image.fromarray(canvas.pixels).save(folder / split / name, compress_level=1)
            height, width = canvas.pixels.shape[:2]
            content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
            content["annotations"] += _annotations(canvas, image_id)
        for number, annotation in enumerate(content["annotations"], first_id):
            annotation["id"] = number
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        first_id += count
    (folder / MARKER).write_text(_marker(VERSION))


def _content(classes: Classes) -> dict[str, Any]:
    return {
        "info": {"description": f"scikit-learn's handwritten digits on canvases, version {VERSION}"},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes.names or (), 1)],
    }


def _annotations(canvas: Canvas, image_id: int) -> list[dict[str, Any]]:
    masks = [canvas.visible(number) for number in range(len(canvas.objects))]
    encoded = encode_masks(np.stack(masks)) if masks else []
    return [
        {
            "image_id": image_id,
            "category_id": drawn.label + 1,
            "bbox": coco_mask.toBbox(segmentation).tolist(),
            "area": int(coco_mask.area(segmentation)),
            "iscrowd": int(drawn.is_crowd),
            "segmentation": segmentation,
        }
        for drawn, segmentation in zip(canvas.objects, encoded, strict=True)
    ]


def _is_written(folder: Path) -> bool:
    """Return whether this version's data set is there; raise DataError if anything else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    found = marker.read_text() if marker.is_file() else None
    if found == _marker(VERSION):
        return True
    content = "other files" if found is None else repr(found.strip())
    raise DataError(
        f"root: {folder} holds {content}, not {_marker(VERSION).strip()!r}; name a folder that is not there "
        "yet, or remove this one, and the digits are written anew"
    )


def _marker(version: int) -> str:
    return f"digits on canvases, version {version}\n"
