"""scikit-learn's handwritten digits: 1797 real 8 x 8 scans in 10 classes, inside its package."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from engine.data.classes import Classes, named
from engine.data.sampler import shuffled

_VAL_IMAGES = 360  # a fifth
_BRIGHTEST = 16  # of the data set's pixels


class DigitImages:
    """Some of the digits: pixels of shape (len, 8, 8), white on black, and labels of shape (len,)."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self._pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled(len(self), seed, epoch)


def open_digits(split: str) -> tuple[DigitImages, Classes]:
    """Return images and classes: 1437 of train or 360 of val, whatever the run's seed; stratified."""
    # Imported here: scikit-learn takes a second to load and the other kinds of data do not need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    train, val = train_test_split(
        np.arange(len(labels)), test_size=_VAL_IMAGES, stratify=labels, random_state=0
    )
    chosen = {"train": train, "val": val}[split]
    names = [str(name) for name in digits.target_names]
    return DigitImages(pixels[chosen], labels[chosen]), named(names, "data.kind=digits")
