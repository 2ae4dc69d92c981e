"""data.max_train_images, data.max_val_images and data.shrink_px."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import BrokenImageError, ImageData, ImageOptions, build_data
from engine.data.picture import size_of
from engine.data.sampler import shuffled_in_windows
from engine.data.source import SelectedImages, ShrunkImages
from tests.engine.data.loading import val_loader
from tests.engine.image_files import write_shards


class Numbers:
    """Images whose only pixel is their number; an epoch visits them in shards of 20."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) // 10

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (index, 0, 0))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return shuffled_in_windows([20] * (len(self) // 20), 1, seed, epoch)


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
        return torch.arange(len(self)).flip(0)


def pixel(source: SelectedImages, index: int) -> int:
    return source.image(index).getpixel((0, 0))[0]


@pytest.mark.parametrize("count", [1, 7, 30, 99])
def test_selected_images_are_spread_over_the_source_with_their_labels(count: int) -> None:
    source = SelectedImages(Numbers(100), count)
    numbers = [pixel(source, index) for index in range(len(source))]
    gaps = np.diff([*numbers, 100])
    assert len(set(numbers)) == len(source) == count
    assert gaps.max() - gaps.min() <= 1
    assert source.labels.tolist() == [number // 10 for number in numbers]
    if count == 30:  # sorted by class: each class gets its share
        assert np.bincount(source.labels).tolist() == [3] * 10


def test_an_epoch_takes_every_selected_image_once_in_the_order_of_the_source() -> None:
    source = Numbers(100)
    some = SelectedImages(source, 25)
    order = some.epoch_order(3, 4)
    assert sorted(order.tolist()) == list(range(25)) and order.dtype == torch.int64
    chosen = {pixel(some, index) for index in range(25)}
    expected = [number for number in source.epoch_order(3, 4).tolist() if number in chosen]
    assert [pixel(some, index) for index in order.tolist()] == expected


def test_the_shorter_side_gets_the_size_and_small_images_stay() -> None:
    source = ShrunkImages(Stripes((40, 20), (20, 60), (10, 10), (8, 30)), 10)
    assert [source.image(index).size for index in range(4)] == [(20, 10), (10, 30), (10, 10), (8, 30)]
    assert source.epoch_order(0, 0).tolist() == [3, 2, 1, 0] and source.labels.tolist() == [0, 1, 2, 3]
    pixels = np.asarray(ShrunkImages(Stripes((40, 40)), 10).image(0)).astype(int)
    assert pixels[:, :4].min() == 255 and pixels[:, 6:].max() == 0
    assert np.abs(pixels.mean() - 127.5) < 1  # antialiased


def test_every_image_is_decoded_once_and_broken_ones_raise_each_time() -> None:
    stripes = Stripes((40, 20), None)
    source = ShrunkImages(stripes, 10)
    assert source.image(0) is source.image(0)
    for _ in range(2):
        with pytest.raises(BrokenImageError, match="number 1"):
            source.image(1)
    assert stripes.decoded == [0, 1, 1]


def test_loading_processes_keep_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """They live as long as the run, and each would come to hold the whole data set."""
    stripes = Stripes((40, 20))
    source = ShrunkImages(stripes, 10)
    monkeypatch.setattr("engine.data.source.get_worker_info", object)
    assert [source.image(0).size for _ in range(2)] == [(20, 10)] * 2
    assert stripes.decoded == [0, 0]


def test_a_data_set_is_selected_and_shrunk_in_both_splits(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards")

    def opened(**options: Any) -> ImageData:
        options = {"kind": "webdataset", "image_size_px": 16, "workers": 0, **options}
        return build_data(ImageOptions(root=str(root), **options), seed=0)

    whole, all_of_it = opened(), opened(max_train_images=100, max_val_images=0)
    assert (all_of_it.num_train, all_of_it.num_val) == (whole.num_train, whole.num_val)
    part = opened(max_train_images=2, max_val_images=3, shrink_px=4)
    assert (part.num_train, part.num_val, part.classes) == (2, 3, whole.classes)
    assert min(size_of(part.train.image(0))) == min(size_of(part.val.image(0))) == 4
    read = [
        [images for images, _ in val_loader(opened(max_val_images=3, shrink_px=4, workers=workers), 2)]
        for workers in (0, 1)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*read, strict=True))
