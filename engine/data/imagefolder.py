"""The layout most users have: root/train/<class>/*.jpg and root/val/<class>/*.jpg."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from engine.data.classes import Classes, named
from engine.data.decoding import decode_rgb
from engine.data.picture import Picture
from engine.data.sampler import shuffled
from engine.data.source import DataError, is_hidden
from engine.records.console import listed, warn_on_main


class FolderImages:
    """The images of one split, `folder/<class>/**`, in the order of their names.

    Attributes:
        hidden: the paths of hidden images and folders that were left out.
    """

    def __init__(
        self, folder: Path, class_folders: Sequence[str], decoder: str, *, allow_empty: bool = False
    ) -> None:
        """List the files; a class's label is its place among the folders.

        Raises DataError for a class without images (if empty ones are allowed: where all are), OSError for an
        unreadable folder.
        """
        self._folder, self._decoder = folder, decoder
        self.hidden: list[str] = []
        names: list[bytes] = []
        labels: list[int] = []
        empty: list[str] = []
        for label, class_folder in enumerate(class_folders):
            images, hidden = _image_files(folder / class_folder)
            names += [os.fsencode(os.path.relpath(path, folder)) for path in images]
            labels += [label] * len(images)
            self.hidden += hidden
            if not images:
                empty.append(class_folder)
        if empty and not (allow_empty and names):
            kinds = ", ".join(IMG_EXTENSIONS)
            raise DataError(f"root: {folder}: no image ({kinds}) in the classes {', '.join(empty)}")
        # Arrays, not lists: loading processes copy lists page by page, as they count the objects' references.
        self._names = np.array(names)
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Picture:
        """Return one image. Raises BrokenImageError, and OSError for a file that cannot be read."""
        path = self._folder / os.fsdecode(self._names[index])
        return decode_rgb(path.read_bytes(), str(path), self._decoder)

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled(len(self), seed, epoch)


def open_image_folder(root: Path, split: str, decoder: str) -> tuple[FolderImages, Classes]:
    """Return the images and classes of root/train or root/val; hidden files are left out with a warning.

    Raises DataError for a missing folder, for no image at all and, in train, for a class without images.
    """
    folders, hidden = _classes(root, split)
    # A class that only val lacks changes no label.
    images = FolderImages(root / split, list(folders.values()), decoder, allow_empty=split == "val")
    hidden += images.hidden
    if hidden:
        warn_on_main(f"{root / split}: left out hidden files and folders: {listed(hidden)}")
    return images, named(list(folders), str(root / split))


def _classes(root: Path, split: str) -> tuple[dict[str, str], list[str]]:
    """Return the folder of each class by the class's name, sorted by folder, and paths of hidden folders."""
    folder = root / split
    layout = f"expected {folder}/<class>/*.jpg"
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
            _require_no_loop(Path(parent, name).absolute())
    return [os.path.join(*place) for place in sorted(found)], hidden


def _raise(error: OSError) -> NoReturn:
    raise error  # os.walk goes on by default, and the images of an unreadable folder would be missing


def _require_no_loop(folder: Path) -> None:
    """Raise DataError for a link to one of the folders on the way to it."""
    # Its images would be found again and again, to the depth that the system allows.
    if folder.is_symlink() and folder.resolve() in [parent.resolve() for parent in folder.parents]:
        raise DataError(f"root: {folder} is a link to a folder that holds the link; remove it")
