"""The layout most users have: root/train/<class>/*.jpg and root/val/<class>/*.jpg."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from engine.data.sampler import shuffled
from engine.data.source import DataError, decode_rgb


class FolderImages:
    """The images of one split, `folder/<class>/**`, in the order of their names."""

    def __init__(self, folder: Path, class_to_index: dict[str, int]) -> None:
        """List the files. Raises DataError for a class without images."""
        try:
            samples = make_dataset(str(folder), class_to_index, extensions=IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise DataError(f"root: {folder}: {error}") from error
        self._folder = folder
        # Arrays, not lists: loading processes copy lists page by page, as they count the objects' references.
        self._names = np.array([os.fsencode(os.path.relpath(path, folder)) for path, _ in samples])
        self.labels = np.array([label for _, label in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB. Raises BrokenImageError, and OSError for a file that cannot be read."""
        path = self._folder / os.fsdecode(self._names[index])
        return decode_rgb(path.read_bytes(), str(path))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled(len(self), seed, epoch)


def open_image_folder(root: Path) -> tuple[FolderImages, FolderImages, list[str]]:
    """Return (train, val, class names) of root/train and root/val.

    Raises DataError for a missing folder, an empty class, and classes that differ between the two.
    """
    train_classes, val_classes = _classes(root, "train"), _classes(root, "val")
    differing = sorted(train_classes.keys() ^ val_classes.keys())
    if differing:
        places = [f"{name} ({'train' if name in train_classes else 'val'} only)" for name in differing[:5]]
        raise DataError(
            f"root: {root}: {len(differing)} classes are not in both train/ and val/: {', '.join(places)}"
        )
    train = FolderImages(root / "train", train_classes)
    return train, FolderImages(root / "val", val_classes), list(train_classes)


def _classes(root: Path, split: str) -> dict[str, int]:
    folder = root / split
    layout = f"expected {root}/train/<class>/*.jpg and {root}/val/<class>/*.jpg"
    if not folder.is_dir():
        raise DataError(f"root: {folder} is not a folder; {layout}")
    try:
        names, _ = find_classes(str(folder))
    except FileNotFoundError as error:
        raise DataError(f"root: {folder} has no class folders; {layout}") from error
    return {name: number for number, name in enumerate(names)}
