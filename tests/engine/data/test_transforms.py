import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from engine.data.sampler import isolated_rng
from engine.data.transforms import (
    Transform,
    autoaugment_transform,
    digit_transform,
    eval_transform,
    photo_transform,
)
from tests.engine.image_files import picture


def halves() -> Image.Image:
    """Return a picture, white in its left half and black in its right."""
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, :16] = 255
    return Image.fromarray(image)


def left_is_brighter(image: torch.Tensor) -> bool:
    middle = image.shape[2] // 2
    return bool(image[:, :, :middle].float().mean() > image[:, :, middle:].float().mean())


def test_evaluation_without_a_crop_changes_nothing() -> None:
    image = picture(1, (16, 16))
    result = eval_transform(16, 1.0)(image)
    assert result.shape == (3, 16, 16) and result.dtype == torch.uint8
    assert np.array_equal(result, np.asarray(image).transpose(2, 0, 1))


def test_evaluation_crops_the_centre_of_the_resized_image() -> None:
    image = picture(2, (128, 64))  # shorter side already 56 / 0.875 = 64, so nothing is resized
    result = eval_transform(56, 0.875)(image)
    assert np.array_equal(result, np.asarray(image)[4:60, 36:92].transpose(2, 0, 1))


def test_evaluation_resizes_the_shorter_side_to_256_for_224() -> None:
    framed = np.zeros((448, 600, 3), dtype=np.uint8)
    framed[56:-56] = 255  # 32 of 256 rows above and below are black; the crop takes 16 of them away
    rows = eval_transform(224, 0.875)(Image.fromarray(framed)).float().mean(dim=(0, 2))
    assert rows.shape == (224,)
    assert rows[:15].max() < 1e-3 and rows[-15:].max() < 1e-3
    assert rows[17:-17].min() > 254.99


@pytest.mark.parametrize("transform", [photo_transform(24), autoaugment_transform(24), digit_transform(24)])
def test_augmentation_changes_with_the_seed_and_only_with_it(transform: Transform) -> None:
    image = picture(4)
    results = []
    for seed in (0, 0, 1):
        with isolated_rng(seed):
            results.append(transform(image))
    assert results[0].shape == (3, 24, 24) and results[0].dtype == torch.uint8
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_autoaugment_goes_beyond_crop_and_flip() -> None:
    image = picture(5)
    differing = 0
    for seed in range(10):
        with isolated_rng(seed):
            plain = photo_transform(24)(image)
        with isolated_rng(seed):
            differing += not torch.equal(plain, autoaugment_transform(24)(image))
    assert differing >= 5


def test_photographs_are_mirrored_half_of_the_time_and_digits_never() -> None:
    mirrored = 0
    for seed in range(40):
        with isolated_rng(seed):
            mirrored += not left_is_brighter(photo_transform(32)(halves()))
        with isolated_rng(seed):
            assert left_is_brighter(digit_transform(32)(halves()))
    assert 8 < mirrored < 32


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (9000, 3), (2, 1001), (33, 2)])
@pytest.mark.parametrize("make", [lambda side: eval_transform(side, 0.875), photo_transform, digit_transform])
def test_a_strip_takes_no_more_memory_than_what_is_seen_of_it(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], make: Callable[[int], Transform]
) -> None:
    made = []
    resize = Image.Image.resize

    def recorded(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        result = resize(image, *arguments, **options)
        made.append(result.width * result.height)
        return result

    monkeypatch.setattr(Image.Image, "resize", recorded)
    assert make(32)(picture(1, size)).shape == (3, 32, 32)
    assert max(made) <= max(20 * 37 * 37, size[0] * size[1])


@pytest.mark.parametrize("size", [(4000, 10), (10, 4000), (1601, 10), (3, 121)])
def test_a_strip_is_seen_as_if_it_were_resized_as_a_whole(size: tuple[int, int]) -> None:
    strip = picture(3, size)
    whole = v2.Compose([v2.Resize(37), v2.CenterCrop(32)])(strip)
    expected = np.asarray(whole).transpose(2, 0, 1).astype(int)
    assert np.abs(eval_transform(32, 0.875)(strip).numpy() - expected).max() <= 2


@pytest.mark.parametrize("size", [(160, 10), (10, 160), (41, 40), (640, 40)])
def test_images_up_to_16_times_as_long_as_wide_are_resized_as_a_whole(size: tuple[int, int]) -> None:
    image = picture(3, size)
    whole = v2.Compose([v2.Resize(37), v2.CenterCrop(32)])(image)
    assert np.array_equal(eval_transform(32, 0.875)(image), np.asarray(whole).transpose(2, 0, 1))


CROP_AND_FLIP = (v2.RandomResizedCrop(32), v2.RandomHorizontalFlip())


@pytest.mark.parametrize("size", [(40, 40), (32, 32), (37, 53), (300, 200), (7, 100), (100, 7), (1, 1)])
@pytest.mark.parametrize(
    ("transform", "steps"),
    [
        (photo_transform(32), CROP_AND_FLIP),
        (autoaugment_transform(32), (*CROP_AND_FLIP, v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET))),
        (
            digit_transform(32),
            (
                v2.Resize((32, 32)),
                v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), None, v2.InterpolationMode.BILINEAR),
            ),
        ),
        (eval_transform(32, 0.875), (v2.Resize(37), v2.CenterCrop(32))),
        (eval_transform(32, 1.0), (v2.Resize(32), v2.CenterCrop(32))),
    ],
    ids=["photo", "autoaugment", "digits", "evaluation", "evaluation without a crop"],
)
def test_samples_and_draws_are_those_of_torchvisions_classes_to_the_bit(
    transform: Transform, steps: tuple[v2.Transform, ...], size: tuple[int, int]
) -> None:
    composed = v2.Compose([*steps, v2.PILToTensor()])
    transform = pickle.loads(pickle.dumps(transform))  # as in a loading process that was not forked
    for seed in range(25):
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected, following = composed(image), torch.rand(1)
        with isolated_rng(seed):
            result = transform(image)
            assert torch.equal(torch.rand(1), following)
        assert torch.equal(result, expected)
        assert np.array_equal(np.asarray(image), noise)
