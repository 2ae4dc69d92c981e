"""WebDataset shards: root/train-*.tar and root/val-*.tar; a sample is an image (jpg, jpeg, png) and its cls.

Shards are uncompressed tar files, so an image can be read from where the index says it lies. With sequential
reading, the usual way, batches depend on the number of processes, epochs end unevenly, and a resume reads all
the earlier data again; here all three are exact.
"""

import json
from pathlib import Path

import numpy as np
import torch

from engine.data.classes import Classes, named, numbered
from engine.data.decoding import decode_rgb
from engine.data.picture import Picture
from engine.data.sampler import shuffled_in_windows
from engine.data.shard import member_name, read_image
from engine.data.shard_index import ShardIndex, load_or_scan
from engine.data.source import DataError, Labels

_WINDOW_SHARDS = 16  # shuffled together: with the usual 1000 images a shard, a choice from 16,000 images


class ShardImages:
    """The images of one split, in the shards of `root`."""

    def __init__(self, root: Path, index: ShardIndex, decoder: str) -> None:
        self._root, self._index, self._decoder = root, index, decoder
        # number of the first sample of each shard
        self._first = np.cumsum(index.shard_sizes) - index.shard_sizes
        self.labels = index.labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Picture:
        """Return one image.

        Raises BrokenImageError, DataError where the index does not fit, and OSError for an unreadable shard.
        """
        path, number = self._place(index)
        entries = self._index
        columns = (entries.offsets, entries.lengths, entries.label_offsets, entries.checksums)
        found = read_image(path, *(int(column[index]) for column in columns))
        if found is None:
            raise DataError(
                f"{path}: the shard has changed: name, size, place or label of number {number} is not what "
                f"was read before; run `python -m engine.data {self._root}` and start again"
            )
        name, data = found
        return decode_rgb(data, f"{name!r}, number {number} of {path.name}", self._decoder)

    def require_labels_of(self, classes: Classes) -> None:
        """Raise DataError for a label that is none of the classes; it names the first sample that has one."""
        wrong = np.flatnonzero(self.labels >= classes.count)
        if len(wrong):
            index = wrong[0]
            path, number = self._place(index)
            with path.open("rb") as file:
                name = member_name(file, int(self._index.label_offsets[index]))
            raise DataError(
                f"{path}: {name!r} (number {number}) has label {self.labels[index]}; {classes.source} has "
                f"0 .. {classes.count - 1}"
            )

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        # Few shards at a time, so that reads stay close together.
        return shuffled_in_windows(self._index.shard_sizes.tolist(), _WINDOW_SHARDS, seed, epoch)

    def _place(self, index: int) -> tuple[Path, int]:
        """Return a sample's shard, and its number in there."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._root / str(self._index.shard_names[shard]), index - int(self._first[shard])


def open_shards(root: Path, split: str, decoder: str) -> tuple[ShardImages, Classes]:
    """Return the images and classes of root/train-*.tar or root/val-*.tar.

    Class names come from root/meta.json, {"classes": [...]}, where it exists; otherwise they have none.
    Raises DataError for missing or damaged shards and for labels that do not fit the classes.
    """
    images = ShardImages(root, load_or_scan(root, split), decoder)
    path = root / "meta.json"
    if path.exists():
        names = _class_names(path)
        classes = named(names, str(path), range(len(names)))
    else:
        count = _count(root, images.labels) if split == "train" else 1 + int(images.labels.max())
        classes = numbered(count, f"{root}/{split}-*.tar")
    images.require_labels_of(classes)
    return images, classes


def _count(root: Path, labels: Labels) -> int:
    """Return the number of classes. Raises DataError unless each number below is a label."""
    seen = np.unique(labels).tolist()
    if seen[-1] != len(seen) - 1:
        raise DataError(
            f"root: {root}: train-*.tar has {len(seen)} different labels, {seen[0]} .. {seen[-1]}, so the "
            "number of classes is unknown: either write the names of all, in the order of the labels, to "
            f'{root}/meta.json, {{"classes": [...]}}, or number the classes from 0 without a gap'
        )
    return len(seen)


def _class_names(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: expected {{"classes": ["name of class 0", ...]}}: {error!r}') from error
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: classes: expected a list of names, got {names!r}")
    return [str(name) for name in names]
