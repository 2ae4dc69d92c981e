"""What every kind of data promises: the same batches whoever reads them."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data import ImageData, build_data
from engine.data.digits import DigitImages
from engine.data.source import ImageSource
from tests.engine.image_files import write_folder, write_shards

KINDS = ["digits", "imagefolder", "webdataset"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("images")
    return {
        "digits": root,
        "imagefolder": write_folder(root / "folder"),
        "webdataset": write_shards(root / "shards"),
    }


def open_data(roots: dict[str, Path], kind: str, seed: int = 0, augmentation: str = "standard") -> ImageData:
    data = build_data(
        kind=kind,
        root=str(roots[kind]),
        image_size_px=16,
        augmentation=augmentation,
        eval_crop_ratio=0.875,
        broken_images="error",
        seed=seed,
    )
    if kind != "digits":
        return data
    return replace(data, train=first_digits(data.train, 24), val=first_digits(data.val, 15))


def first_digits(source: ImageSource, count: int) -> DigitImages:
    """Return as many as the other kinds have."""
    scans = [np.asarray(source.image(index))[:, :, 0] for index in range(count)]
    return DigitImages(np.stack(scans), source.labels[:count])


def train_batches(
    data: ImageData,
    epoch: int = 0,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    micro_batch_size: int = 4,
    workers: int = 0,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = data.train_loader(
        epoch=epoch,
        start_step=start_step,
        global_batch_size=8,
        micro_batch_size=micro_batch_size,
        rank=rank,
        world_size=world_size,
        workers=workers,
    )
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def equal(one: list, other: list) -> bool:
    """Whether two lists of batches are the same to the bit."""
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def joined(batches: list) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_depend_on_workers(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    here = train_batches(data)
    assert len(here) == 6
    images, labels = here[0]
    assert images.dtype == torch.float32 and images.shape[1:] == (3, 16, 16) and images.device.type == "cpu"
    assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]
    assert equal(here, train_batches(data, workers=2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start_step", [1, 3])
def test_a_resume_in_mid_epoch_gives_the_same_batches(
    roots: dict[str, Path], kind: str, start_step: int
) -> None:
    whole = train_batches(open_data(roots, kind), epoch=2)
    rest = train_batches(open_data(roots, kind), epoch=2, start_step=start_step)
    assert equal(whole[2 * start_step :], rest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 4])
def test_a_step_consumes_the_same_samples_on_any_number_of_ranks(
    roots: dict[str, Path], kind: str, world_size: int
) -> None:
    data = open_data(roots, kind)
    alone = train_batches(data)
    shares = [
        train_batches(data, rank=rank, world_size=world_size, micro_batch_size=2)
        for rank in range(world_size)
    ]
    per_step = len(shares[0]) // 3
    for step in range(3):
        images, labels = joined([batch for share in shares for batch in share[step * per_step :][:per_step]])
        expected_images, expected_labels = joined(alone[2 * step : 2 * step + 2])
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_and_seeds_differ_in_order_and_augmentation(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    first = train_batches(data)
    assert equal(first, train_batches(open_data(roots, kind)))
    for other in (train_batches(data, epoch=1), train_batches(open_data(roots, kind, seed=1))):
        assert not equal(first, other)
        # not only another order: no image of the one is an image of the other
        ours, theirs = joined(first)[0].flatten(1), joined(other)[0].flatten(1)
        assert torch.cdist(ours, theirs).min() > 0


def test_equal_images_get_augmentations_of_their_own(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder")
    files = sorted((root / "train").rglob("*.jpg"))
    for file in files:
        file.write_bytes(files[0].read_bytes())
    images, _ = joined(train_batches(open_data({"imagefolder": root}, "imagefolder")))
    assert len({bytes(image.numpy()) for image in images}) == len(images) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_consumes_distinct_samples(roots: dict[str, Path], kind: str) -> None:
    images, _ = joined(train_batches(open_data(roots, kind, augmentation="none")))
    assert len({bytes(image.numpy()) for image in images}) == len(images) == 24


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [1, 4])
def test_evaluation_sees_every_image_once(roots: dict[str, Path], kind: str, world_size: int) -> None:
    data = open_data(roots, kind)
    loaders = [
        data.val_loader(batch_size=4, rank=rank, world_size=world_size, workers=0)
        for rank in range(world_size)
    ]
    images, labels = joined([batch for loader in loaders for batch in loader])
    assert labels.tolist() == data.val.labels.tolist()
    expected = torch.stack([data.eval_transform(data.val.image(index)) for index in range(data.num_val)])
    assert torch.equal(images, expected)


def test_ranks_without_images_evaluate_nothing(roots: dict[str, Path]) -> None:
    data = open_data(roots, "imagefolder")
    counts = [
        sum(len(labels) for _, labels in data.val_loader(batch_size=4, rank=rank, world_size=20, workers=0))
        for rank in range(20)
    ]
    assert sorted(counts) == [0] * 5 + [1] * 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_the_global_rng_alone(roots: dict[str, Path], kind: str, workers: int) -> None:
    data = open_data(roots, kind, augmentation="autoaugment")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train_batches(data, workers=workers)
    list(data.val_loader(batch_size=50, rank=0, world_size=1, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_can_be_sent_to_another_process(roots: dict[str, Path], kind: str) -> None:
    data = open_data(roots, kind)
    copy = pickle.loads(pickle.dumps(data))
    assert equal(train_batches(data), train_batches(copy))
