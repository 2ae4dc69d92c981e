"""What every kind of data promises: the same batches whoever reads them."""

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.data import ImageData, ImageOptions, build_data
from engine.data.digits import DigitImages
from engine.data.source import DataError, ImageSource, Once
from engine.errors import sentence_of
from tests.engine.data.loading import train_loader, val_loader
from tests.engine.image_files import write_folder, write_shards

each_kind = pytest.mark.parametrize("kind", ["digits", "imagefolder", "webdataset"])
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("images")
    return {
        "digits": root,
        "imagefolder": write_folder(root / "folder"),
        "webdataset": write_shards(root / "shards"),
    }


def open_data(roots: dict[str, Path], kind: str, seed: int = 0, **options: Any) -> ImageData:
    data = build_data(
        ImageOptions(kind=kind, root=str(roots[kind]), image_size_px=16, **{"workers": 0, **options}), seed
    )
    if kind != "digits":
        return data
    train_split = Once(partial(tuple, (first_digits(data.train, 24), data.classes)))
    return replace(data, train_split=train_split, val=first_digits(data.val, 15))


def first_digits(source: ImageSource, count: int) -> DigitImages:
    """Return as many as the other kinds have."""
    scans = [np.asarray(source.image(index))[:, :, 0] for index in range(count)]
    return DigitImages(np.stack(scans), source.labels[:count])


def read(data: ImageData, **cut: int) -> Batches:
    loader = train_loader(data, **cut)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def equal(one: Batches, other: Batches) -> bool:
    """Whether two lists of batches are the same to the bit."""
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def joined(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@each_kind
def test_batches_do_not_depend_on_workers_nor_on_the_process(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    here = read(data)
    assert len(here) == 6
    images, labels = here[0]
    assert images.dtype == torch.uint8 and images.shape[1:] == (3, 16, 16) and images.device.type == "cpu"
    assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]
    assert equal(here, read(replace(data, workers=2)))
    assert equal(here, read(pickle.loads(pickle.dumps(open_data(roots, kind)))))


@each_kind
def test_a_resume_in_mid_epoch_gives_the_same_batches(roots: dict[str, Path], kind: str) -> None:
    whole = read(open_data(roots, kind), epoch=2)
    assert equal(whole[2:], read(open_data(roots, kind), epoch=2, start_step=1))


@each_kind
def test_a_step_takes_the_same_samples_on_any_number_of_ranks(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    alone = read(data)
    shares = [read(data, rank=rank, world_size=4, micro_batch_size=2) for rank in range(4)]
    for step in range(3):
        images, labels = joined([share[step] for share in shares])
        expected_images, expected_labels = joined(alone[2 * step : 2 * step + 2])
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)


@each_kind
def test_epochs_and_seeds_differ_in_order_and_augmentation(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    first = read(data)
    assert equal(first, read(open_data(roots, kind)))
    for other in (read(data, epoch=1), read(open_data(roots, kind, seed=1))):
        # not only another order: no image of the one is an image of the other
        ours, theirs = joined(first)[0].flatten(1), joined(other)[0].flatten(1)
        assert torch.cdist(ours.float(), theirs.float()).min() > 0


def test_equal_images_get_augmentations_of_their_own(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder")
    files = sorted((root / "train").rglob("*.jpg"))
    for file in files:
        file.write_bytes(files[0].read_bytes())
    images, _ = joined(read(open_data({"imagefolder": root}, "imagefolder")))
    assert len({bytes(image.numpy()) for image in images}) == len(images) == 24


@each_kind
def test_an_epoch_takes_distinct_samples(roots: dict[str, Path], kind: str) -> None:
    images, _ = joined(read(open_data(roots, kind, augmentation="none")))
    assert len({bytes(image.numpy()) for image in images}) == len(images) == 24


@each_kind
@pytest.mark.parametrize("world_size", [1, 4])
def test_evaluation_sees_every_image_once(roots: dict[str, Path], kind: str, world_size: int) -> None:
    data = open_data(roots, kind)
    loaders = [val_loader(data, rank=rank, world_size=world_size) for rank in range(world_size)]
    images, labels = joined([batch for loader in loaders for batch in loader])
    assert labels.tolist() == data.val.labels.tolist()
    expected = torch.stack([data.eval_transform(data.val.image(index)) for index in range(data.num_val)])
    assert torch.equal(images, expected)


@each_kind
@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_the_global_rng_alone(roots: dict[str, Path], kind: str, workers: int) -> None:
    data = open_data(roots, kind, augmentation="autoaugment", workers=workers)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read(data)
    list(val_loader(data))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_gone_is_named_without_a_traceback(tmp_path: Path, workers: int) -> None:
    images = build_data(ImageOptions(root=str(write_folder(tmp_path)), workers=workers), 0)
    (tmp_path / "train" / "ant" / "000.jpg").unlink()
    try:
        list(images.train_loader(0, [[0, 1]]))
    except OSError as error:
        assert "000.jpg: No such file" in str(sentence_of(error))
    else:
        pytest.fail("nothing was raised")


def test_the_sentence_of_a_loading_process_has_no_traceback(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    for file in root.rglob("train/*/*.jpg"):
        file.write_bytes(b"")
    images = build_data(ImageOptions(root=str(root), workers=1, broken_images="skip"), 0)
    with pytest.raises(DataError, match="^none of the 24 training images can be decoded"):
        list(images.train_loader(0, [[0, 1]]))
