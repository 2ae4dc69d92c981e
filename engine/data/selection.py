"""A part of a data set, for a quick look or a small study: evenly spread images of a split."""

import numpy as np
import torch
from PIL import Image

from engine.data.source import ImageSource


class SomeImages:
    """`count` images of a source, evenly spread: of each class its share, where they are sorted by class."""

    def __init__(self, source: ImageSource, count: int) -> None:
        """Take 1 <= count <= len(source) images."""
        self._source = source
        self._numbers = np.arange(count) * len(source) // count
        self.labels = source.labels[self._numbers]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._numbers)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB. Raises BrokenImageError."""
        return self._source.image(int(self._numbers[index]))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return the source's order without the images left out: neighbours in a shard stay neighbours."""
        places = torch.full((len(self._source),), -1)
        places[torch.from_numpy(self._numbers)] = torch.arange(len(self))
        ordered = places[self._source.epoch_order(seed, epoch)]
        return ordered[ordered >= 0]


def at_most(source: ImageSource, count: int) -> ImageSource:
    """Return the source itself, or `count` of its images if it has more; 0 means all."""
    return SomeImages(source, count) if 0 < count < len(source) else source
