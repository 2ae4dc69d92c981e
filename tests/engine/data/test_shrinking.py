"""data.shrink_px."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import BrokenImageError, build_data
from engine.data.sampler import shuffled
from engine.data.shrinking import ShrunkImages, shrunk
from tests.engine.image_files import write_shards


class Stripes:
    """Images of the given sizes (width, height), white in their left half; None is broken."""

    def __init__(self, *sizes: tuple[int, int] | None) -> None:
        self.labels = np.arange(len(sizes))
        self._sizes = sizes
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        self.decoded.append(index)
        size = self._sizes[index]
        if size is None:
            raise BrokenImageError(f"number {index}")
        image = Image.new("RGB", size)
        image.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
        return image

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled(len(self), seed, epoch)


def test_the_shorter_side_gets_the_size_and_small_images_stay() -> None:
    source = ShrunkImages(Stripes((40, 20), (20, 60), (10, 10), (8, 30)), 10)
    assert [source.image(index).size for index in range(4)] == [(20, 10), (10, 30), (10, 10), (8, 30)]


def test_pixels_are_means_of_what_they_cover() -> None:
    pixels = np.asarray(ShrunkImages(Stripes((40, 40)), 10).image(0)).astype(int)
    assert pixels[:, :4].min() == 255 and pixels[:, 6:].max() == 0
    assert np.abs(pixels.mean() - 127.5) < 1


def test_every_image_is_decoded_once_and_broken_ones_are_told_each_time() -> None:
    stripes = Stripes((40, 20), None)
    source = ShrunkImages(stripes, 10)
    assert source.image(0) is source.image(0)
    for _ in range(2):
        with pytest.raises(BrokenImageError, match="number 1"):
            source.image(1)
    assert stripes.decoded == [0, 1, 1]


def test_labels_and_order_are_those_of_the_source() -> None:
    stripes = Stripes(*[(12, 12)] * 9)
    source = ShrunkImages(stripes, 10)
    assert len(source) == 9 and source.labels is stripes.labels
    assert torch.equal(source.epoch_order(1, 2), stripes.epoch_order(1, 2))
    assert shrunk(stripes, 0) is stripes


def test_a_data_set_is_shrunk_in_both_splits(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(
        kind="webdataset", root=str(write_shards(tmp_path)), image_size_px=16, augmentation="none", seed=0
    )
    options |= dict(eval_crop_ratio=1.0, broken_images="error", shrink_px=4)
    data = build_data(**options)
    assert min(data.train.image(0).size) == min(data.val.image(0).size) == 4
    first, again = (
        [images for images, _ in data.val_loader(batch_size=2, rank=0, world_size=1, workers=workers)]
        for workers in (0, 1)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
