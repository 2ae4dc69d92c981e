"""data.max_train_images and data.max_val_images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import build_data
from engine.data.sampler import shuffled, shuffled_in_windows
from engine.data.selection import SomeImages, at_most
from tests.engine.image_files import write_shards


class Numbers:
    """Images whose only pixel is their number; `shards` says how an epoch visits them."""

    def __init__(self, count: int, shards: list[int] | None = None) -> None:
        self.labels = np.arange(count) // 10
        self._shards = shards

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (index, 0, 0))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        if self._shards:
            return shuffled_in_windows(self._shards, 1, seed, epoch)
        return shuffled(len(self), seed, epoch)


def pixel(source: SomeImages, index: int) -> int:
    return source.image(index).getpixel((0, 0))[0]


@pytest.mark.parametrize("count", [1, 7, 40, 99])
def test_images_are_spread_over_the_source_with_their_labels(count: int) -> None:
    source = SomeImages(Numbers(100), count)
    numbers = [pixel(source, index) for index in range(len(source))]
    gaps = np.diff([*numbers, 100])
    assert len(set(numbers)) == len(source) == count
    assert gaps.max() - gaps.min() <= 1
    assert source.labels.tolist() == [number // 10 for number in numbers]


def test_a_source_sorted_by_class_gives_each_class_its_share() -> None:
    assert np.bincount(SomeImages(Numbers(100), 30).labels).tolist() == [3] * 10


def test_an_epoch_takes_every_image_once_in_the_sources_order() -> None:
    source = Numbers(100, shards=[20] * 5)
    some = SomeImages(source, 25)
    order = some.epoch_order(3, 4)
    assert sorted(order.tolist()) == list(range(25))
    chosen = {pixel(some, index) for index in range(25)}
    expected = [number for number in source.epoch_order(3, 4).tolist() if number in chosen]
    assert [pixel(some, index) for index in order.tolist()] == expected
    assert order.dtype == torch.int64


@pytest.mark.parametrize("count", [0, 100, 101])
def test_no_maximum_or_one_that_is_not_reached_changes_nothing(count: int) -> None:
    source = Numbers(100)
    assert at_most(source, count) is source


def test_a_data_set_keeps_its_classes(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards")
    options: dict[str, Any] = dict(
        kind="webdataset", root=str(root), image_size_px=16, augmentation="none", seed=0
    )
    options |= dict(eval_crop_ratio=1.0, broken_images="error")
    whole, part = build_data(**options), build_data(**options, max_train_images=2, max_val_images=1)
    assert (part.num_train, part.num_val, part.class_names) == (2, 1, whole.class_names)
    assert part.steps_per_epoch(2) == 1
    loader = part.val_loader(batch_size=4, rank=0, world_size=1, workers=0)
    assert [len(labels) for _, labels in loader] == [1]
