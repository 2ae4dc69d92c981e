"""The layout most users have: root/train/<class>/*.jpg and root/val/<class>/*.jpg."""

import os
import unicodedata
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from engine.data.sampler import shuffled
from engine.data.source import DataError, decode_rgb, is_hidden
from engine.records.console import listed, warn_once


class FolderImages:
    """The images of one split, `folder/<class>/**`, in the order of their names.

    Attributes:
        hidden: the paths of hidden images and folders that were left out.
    """

    def __init__(self, folder: Path, labels_by_folder: dict[str, int]) -> None:
        """List the files. Raises DataError for a class without images, OSError for an unreadable folder."""
        self._folder = folder
        self.hidden: list[str] = []
        names: list[bytes] = []
        labels: list[int] = []
        empty: list[str] = []
        for class_folder, label in sorted(labels_by_folder.items()):
            images, hidden = _image_files(folder / class_folder)
            names += [os.fsencode(os.path.relpath(path, folder)) for path in images]
            labels += [label] * len(images)
            self.hidden += hidden
            if not images:
                empty.append(class_folder)
        if empty:
            kinds = ", ".join(IMG_EXTENSIONS)
            raise DataError(f"root: {folder}: no image ({kinds}) in the classes {', '.join(empty)}")
        # Arrays, not lists: loading processes copy lists page by page, as they count the objects' references.
        self._names = np.array(names)
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB. Raises BrokenImageError, and OSError for a file that cannot be read."""
        path = self._folder / os.fsdecode(self._names[index])
        return decode_rgb(path.read_bytes(), str(path))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled(len(self), seed, epoch)


def open_image_folder(root: Path) -> tuple[FolderImages, FolderImages, list[str]]:
    """Return (train, val, class names) of root/train and root/val; hidden files are left out with a warning.

    Raises DataError for a missing folder, an empty class, and classes that differ between the two.
    """
    (train_classes, train_hidden), (val_classes, val_hidden) = _classes(root, "train"), _classes(root, "val")
    differing = sorted(train_classes.keys() ^ val_classes.keys())
    if differing:
        places = [f"{name} ({'train' if name in train_classes else 'val'} only)" for name in differing[:5]]
        raise DataError(
            f"root: {root}: {len(differing)} classes are not in both train/ and val/: {', '.join(places)}"
        )
    labels = {name: number for number, name in enumerate(train_classes)}
    train, val = (
        FolderImages(root / split, {folder: labels[name] for name, folder in classes.items()})
        for split, classes in (("train", train_classes), ("val", val_classes))
    )
    hidden = [*train_hidden, *train.hidden, *val_hidden, *val.hidden]
    if hidden:
        warn_once(f"{root}: left out hidden files and folders: {listed(hidden)}")
    return train, val, list(labels)


def _classes(root: Path, split: str) -> tuple[dict[str, str], list[str]]:
    """Return the folder of each class by the class's name, sorted by folder, and paths of hidden folders."""
    folder = root / split
    layout = f"expected {root}/train/<class>/*.jpg and {root}/val/<class>/*.jpg"
    if not folder.is_dir():
        raise DataError(f"root: {folder} is not a folder; {layout}")
    folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    classes: dict[str, str] = {}
    for name in folders:
        if is_hidden(name):
            continue
        # One name has several forms in Unicode, and which one a folder has depends on the file system and on
        # the program that copied it.
        normal = unicodedata.normalize("NFC", name)
        if normal in classes:
            raise DataError(
                f"root: {folder} has two folders for the class {normal}, whose names differ only in their "
                f"Unicode form: {ascii(classes[normal])} and {ascii(name)}; move the images into one of them"
            )
        classes[normal] = name
    if not classes:
        raise DataError(f"root: {folder} has no class folders; {layout}")
    return classes, [str(folder / name) for name in folders if is_hidden(name)]


def _image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of the images below a folder, sorted, and those of hidden images and folders."""
    found: list[tuple[str, str]] = []  # parent and name
    hidden: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        images = [name for name in files if name.lower().endswith(IMG_EXTENSIONS)]
        found += [(parent, name) for name in images if not is_hidden(name)]
        hidden += [os.path.join(parent, name) for name in (*images, *folders) if is_hidden(name)]
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            _require_no_loop(os.path.join(parent, name))
    return [os.path.join(*place) for place in sorted(found)], hidden


def _raise(error: OSError) -> NoReturn:
    raise error  # os.walk goes on by default, and the images of an unreadable folder would be missing


def _require_no_loop(folder: str) -> None:
    """Raise DataError for a link to a folder that holds the link."""
    # Its images would be found again and again, to the depth that the system allows.
    if os.path.islink(folder) and Path(folder).resolve() in Path(folder).parent.resolve().parents:
        raise DataError(f"root: {folder} is a link to a folder that holds the link; remove it")
