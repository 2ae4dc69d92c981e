"""data.shrink_px: images brought to a small size once and then kept in memory, for studies in small."""

import torch
from PIL import Image
from torchvision.transforms import v2

from engine.data.source import ImageSource


class ShrunkImages:
    """A source whose images have a shorter side of at most `side_px`, each decoded only once per process."""

    def __init__(self, source: ImageSource, side_px: int) -> None:
        """Shrink the images of `source` (side_px >= 1), bilinearly and with antialiasing."""
        self._source, self._side_px = source, side_px
        self._kept: dict[int, Image.Image] = {}
        self.labels = source.labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._source)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB, which must not be changed in place. Raises BrokenImageError."""
        if index not in self._kept:
            self._kept[index] = self._shrink(self._source.image(index))
        return self._kept[index]

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return the source's order."""
        return self._source.epoch_order(seed, epoch)

    def _shrink(self, image: Image.Image) -> Image.Image:
        if min(image.size) <= self._side_px:
            return image
        small: Image.Image = v2.functional.resize(image, [self._side_px])
        return small


def shrunk(source: ImageSource, side_px: int) -> ImageSource:
    """Return the source itself, or with shrunk images in memory; 0 means neither."""
    return ShrunkImages(source, side_px) if side_px else source
