"""WebDataset shards: root/train-*.tar and root/val-*.tar; a sample is an image (jpg, jpeg, png) and its cls.

Shards are uncompressed tar files, so an image can be read from where the index says it lies. With sequential
reading, the usual way, batches depend on the number of processes, epochs end unevenly, and a resume reads all
the earlier data again; here all three are exact.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.data.sampler import shuffled_in_windows
from engine.data.shard_index import ShardIndex, load_or_scan
from engine.data.source import DataError, decode_rgb

_WINDOW_SHARDS = 16  # shuffled together: with the usual 1000 images a shard, a choice from 16,000 images


class ShardImages:
    """The images of one split, in the shards of `root`."""

    def __init__(self, root: Path, index: ShardIndex) -> None:
        self._root, self._index = root, index
        # number of the first sample of each shard
        self._first = np.cumsum(index.shard_sizes) - index.shard_sizes
        self.labels = index.labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB. Raises BrokenImageError, and OSError where the shard cannot be read."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        name = str(self._index.shard_names[shard])
        with (self._root / name).open("rb") as file:
            file.seek(int(self._index.offsets[index]))
            data = file.read(int(self._index.lengths[index]))
        return decode_rgb(data, f"number {index - self._first[shard]} of {name}")

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        # Few shards at a time, so that reads stay close together.
        return shuffled_in_windows(self._index.shard_sizes.tolist(), _WINDOW_SHARDS, seed, epoch)


def open_shards(root: Path) -> tuple[ShardImages, ShardImages, list[str]]:
    """Return (train, val, class names) of a folder of shards.

    Class names come from root/meta.json, {"classes": [...]}, where it exists; otherwise they are the numbers.
    Raises DataError for missing or damaged shards and for labels that do not fit the classes.
    """
    train, val = load_or_scan(root, "train"), load_or_scan(root, "val")
    names = _class_names(root / "meta.json", 1 + int(train.labels.max()))
    seen = np.unique(train.labels).tolist()
    if seen != list(range(len(names))):
        raise DataError(
            f"root: {root}: {len(names)} classes need each of the training labels 0 .. {len(names) - 1}; "
            f"got {len(seen)} different ones, {seen[0]} .. {seen[-1]}"
        )
    if val.labels.max() >= len(names):
        raise DataError(
            f"root: {root}: val-*.tar has label {val.labels.max()}, but there are {len(names)} classes"
        )
    return ShardImages(root, train), ShardImages(root, val), names


def _class_names(path: Path, count: int) -> list[str]:
    if not path.exists():
        return [str(number) for number in range(count)]
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: expected {{"classes": ["name of class 0", ...]}}: {error!r}') from error
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: classes: expected a list of names, got {names!r}")
    return [str(name) for name in names]
