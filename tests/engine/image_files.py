"""Image folders and shards made for the tests: small pictures that differ from each other."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from webdataset.writer import TarWriter

CLASSES = ("ant", "bee", "cow")


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return a smooth picture in RGB (width, height) = size that no other number gives."""
    coarse = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(number: int) -> bytes:
    """Return `picture(number)` as a JPEG file."""
    file = io.BytesIO()
    picture(number).save(file, format="JPEG", quality=90)
    return file.getvalue()


def write_folder(root: Path, train_per_class: int = 8, val_per_class: int = 5) -> Path:
    """Write an image folder of the three classes; picture numbers count up over all files."""
    number = 0
    for split, count in (("train", train_per_class), ("val", val_per_class)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for _ in range(count):
                (root / split / name / f"{number:03d}.jpg").write_bytes(encoded(number))
                number += 1
    return root


def write_shards(root: Path, shard_sizes: dict[str, list[int]] | None = None, classes: bool = True) -> Path:
    """Write shards with the webdataset library, labels 0, 1, 2, 0, 1, ...; picture numbers count up."""
    root.mkdir(parents=True, exist_ok=True)
    number = 0
    for split, sizes in (shard_sizes or {"train": [9, 10, 5], "val": [8, 7]}).items():
        for shard, size in enumerate(sizes):
            with TarWriter(str(root / f"{split}-{shard:04d}.tar")) as writer:
                for _ in range(size):
                    writer.write({"__key__": f"s{number:03d}", "jpg": encoded(number), "cls": number % 3})
                    number += 1
    if classes:
        (root / "meta.json").write_text(json.dumps({"classes": CLASSES}))
    return root
