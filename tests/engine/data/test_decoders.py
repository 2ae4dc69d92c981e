"""Every `data.decoder` reads and refuses the same files, and its samples are Pillow's to a few levels."""

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from engine.data import BrokenImageError, DataError, ImageData, ImageOptions, build_data
from engine.data.coco import CocoOptions, build_coco_data
from engine.data.coco.transforms import to_input
from engine.data.decoding import DECODERS, decode_rgb
from engine.data.picture import cropped, mirrored, resized, size_of, to_pillow, to_tensor
from engine.data.sampler import isolated_rng
from engine.data.transforms import Transform, autoaugment_transform, eval_transform, photo_transform
from tests.engine.data.coco.coco_files import write_coco
from tests.engine.data.loading import train_loader, val_loader
from tests.engine.image_files import picture, write_folder, write_shards

# Between ATen's and Pillow's bilinear resize of 8 bits: both round twice, ATen with coarser weights.
LEVELS = 2


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PHOTO = picture(0, (83, 61))
JPEGS = {
    "4:2:0": encoded(PHOTO),
    "4:2:2": encoded(PHOTO, subsampling="4:2:2"),
    "4:4:4": encoded(PHOTO, subsampling="4:4:4"),
    "progressive": encoded(PHOTO, progressive=True),
    "restarts": encoded(PHOTO, restart_marker_blocks=2),
    "grey": encoded(PHOTO.convert("L")),
    "RGB": encoded(PHOTO, keep_rgb=True),
    "turned": encoded(PHOTO, exif=turned()),
    "trailing": encoded(PHOTO) + b"more",
}
OTHER_FILES = {
    "CMYK": encoded(PHOTO.convert("CMYK")),
    "png": encoded(PHOTO, "PNG"),
    "palette": encoded(PHOTO.convert("P"), "PNG"),
    "alpha": encoded(PHOTO.convert("RGBA"), "PNG"),
    "webp": encoded(PHOTO, "WEBP"),
    "two pictures": encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
}


@pytest.mark.parametrize("options", [ImageOptions, CocoOptions])
def test_the_configuration_knows_every_decoder(options: type) -> None:
    assert get_args(get_type_hints(options)["decoder"]) == DECODERS


@pytest.mark.parametrize("kind", [*JPEGS, *OTHER_FILES])
def test_pixels_are_those_that_pillow_decodes(kind: str) -> None:
    data = (JPEGS | OTHER_FILES)[kind]
    read = decode_rgb(data, "x", "simplejpeg")
    assert size_of(read) == (61, 83)
    pixels, expected = to_tensor(read), decode_rgb(data, "x")
    assert pixels.dtype == torch.uint8 and pixels.stride() == (1, 3 * PHOTO.width, 3)
    assert torch.equal(pixels, to_tensor(expected))
    assert to_pillow(read).tobytes() == to_pillow(expected).tobytes()
    assert torch.equal(to_tensor(mirrored(read)), to_tensor(mirrored(expected)))
    part, of_pillow = (cropped(cropped(whole, 3, 7, 50, 60), 1, 2, 30, 40) for whole in (read, expected))
    assert size_of(part) == (30, 40) and torch.equal(to_tensor(part), to_tensor(of_pillow))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_not_decoded_by_pillow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", None)
    assert to_tensor(decode_rgb(JPEGS[kind], "x", "simplejpeg")).shape == (3, 61, 83)


def smooth(width: int, height: int) -> Image.Image:
    """A picture of slow waves, of which every way to shrink it makes the same."""
    down, right = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(down + phase) * np.cos(right * (1 + phase / 5)) for phase in range(3)]
    return Image.fromarray((127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8))


@pytest.mark.parametrize(
    ("part", "size", "decoded"),
    [
        ((0, 0, 960, 1280), (224, 224), (240, 320)),
        ((100, 200, 449, 449), (224, 224), (480, 640)),
        ((100, 200, 447, 449), (224, 224), (960, 1280)),
        ((511, 3, 448, 900), (112, 225), (240, 320)),
        ((0, 0, 960, 1280), (2000, 2000), (960, 1280)),
        ((959, 1279, 1, 1), (1, 1), (960, 1280)),
        ((160, 320, 320, 320), (40, 40), (120, 160)),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_fraction_that_its_part_still_fills(
    part: tuple[int, int, int, int],
    size: tuple[int, int],
    decoded: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = smooth(1280, 960)
    data, made = encoded(image, quality=98), []
    decode_jpeg = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *a, **k: made.append(decode_jpeg(*a, **k)) or made[-1]
    )
    result = to_tensor(resized(cropped(decode_rgb(data, "x", "simplejpeg"), *part), size))
    assert made[0].shape == (*decoded, 3) and result.shape == (3, *size)
    expected = to_tensor(resized(cropped(image, *part), size))
    assert (result.int() - expected.int()).abs().float().mean() < 2.5


def damaged(data: bytes, numbers: random.Random) -> bytes:
    """Return a file cut off, or with bytes changed, left out or zeroed."""
    place, length = numbers.randrange(len(data)), numbers.randrange(1, 300)
    changed = bytes([*data[:place], numbers.randrange(256), *data[place + 1 :]])
    zeros = bytes(len(data[place : place + length]))
    return numbers.choice(
        [
            data[:place],
            data[: len(data) - place % 8],
            changed,
            data[:place] + data[place + length :],
            data[:place] + zeros + data[place + length :],
        ]
    )


def outcome(data: bytes, decoder: str) -> str | bytes:
    try:
        return to_pillow(decode_rgb(data, "photos/x.jpg", decoder)).tobytes()
    except BrokenImageError as error:
        return str(error)


@pytest.mark.parametrize("kind", JPEGS)
def test_damaged_files_are_taken_or_refused_with_the_same_words_as_by_pillow(kind: str) -> None:
    numbers = random.Random(kind)
    refused = 0
    for _ in range(150):
        data = damaged(JPEGS[kind], numbers)
        expected = outcome(data, "pillow")
        assert outcome(data, "simplejpeg") == expected
        refused += isinstance(expected, str)
    assert 30 < refused < 120


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("transform", [photo_transform(16), eval_transform(16, 0.875)])
def test_a_truncated_file_is_named(decoder: str, transform: Transform) -> None:
    with pytest.raises(BrokenImageError, match="cannot decode the image photos/x.jpg: .*truncated"):
        transform(decode_rgb(JPEGS["4:2:0"][:-300], "photos/x.jpg", decoder))


def test_an_unknown_decoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.decoder.*pilow.*pillow"):
        build_data(ImageOptions(root=str(write_folder(tmp_path)), decoder="pilow"), 0)


def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    options = {"workers": 0, "decoder": "simplejpeg"}
    sentence = "data.decoder=simplejpeg: .*`pip install simplejpeg`, or set data.decoder=pillow"
    with pytest.raises(DataError, match=sentence):
        build_data(ImageOptions(root=str(write_folder(tmp_path / "folder")), **options), seed=0)
    with pytest.raises(DataError, match=sentence):
        coco = CocoOptions(root=str(write_coco(tmp_path / "coco")), **options)
        build_coco_data(coco, with_masks=False, seed=0)


@pytest.mark.parametrize("size", [(640, 480), (300, 200), (53, 37), (32, 32), (7, 100), (1, 1), (4000, 10)])
@pytest.mark.parametrize(
    "transform", [photo_transform(32), eval_transform(32, 0.875), eval_transform(32, 1.0)]
)
def test_samples_of_tensors_are_those_of_pillow_within_two_levels(
    transform: Transform, size: tuple[int, int]
) -> None:
    image = picture(3, size)
    for seed in range(20):
        results = []
        for same in (image, to_tensor(image)):
            with isolated_rng(seed):
                results.append((transform(same).int(), torch.rand(1)))
        (expected, following), (result, draws) = results
        assert result.shape == (3, 32, 32) and torch.equal(draws, following)
        assert (result - expected).abs().max() <= LEVELS


@pytest.mark.parametrize("size", [(20, 30), (80, 80)])
def test_channels_stay_last_in_memory(size: tuple[int, int]) -> None:
    """Anything else doubles the time of resizing, and of making a batch."""
    part = resized(cropped(to_tensor(picture(3, (83, 61))), 5, 7, 40, 50), size)
    for image in (part, mirrored(part)):
        assert isinstance(image, torch.Tensor) and image.permute(1, 2, 0).is_contiguous()


def test_autoaugment_takes_tensors() -> None:
    for seed in range(5):
        with isolated_rng(seed):
            result = autoaugment_transform(24)(to_tensor(picture(1)))
        assert result.shape == (3, 24, 24) and result.dtype == torch.uint8


@pytest.mark.parametrize("mirror", [False, True])
def test_a_detectors_input_is_pillows_within_two_levels(mirror: bool) -> None:
    image = picture(3, (83, 61))
    for size in ((120, 163), (40, 54), (61, 83)):
        one, other = (to_input(same, size, mirror).int() for same in (image, to_tensor(image)))
        assert one.shape == (3, *size) and (one - other).abs().max() <= LEVELS


def opened(root: Path, kind: str, **options: Any) -> ImageData:
    return build_data(ImageOptions(kind=kind, root=str(root), image_size_px=16, **options), seed=3)


def samples(data: ImageData) -> list[torch.Tensor]:
    return [images for epoch in (0, 1) for images, _ in train_loader(data, epoch=epoch)] + [
        images for images, _ in val_loader(data)
    ]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("kind", "write"), [("imagefolder", write_folder), ("webdataset", write_shards)])
def test_loaders_give_the_same_samples_with_and_without_processes(
    tmp_path: Path, name: str, kind: str, write: Callable[[Path], Path]
) -> None:
    root = write(tmp_path / "data")
    read = [samples(opened(root, kind, decoder=name, workers=workers)) for workers in (0, 2)]
    assert len(read[0]) > 6 and all(torch.equal(*pair) for pair in zip(*read, strict=True))
    of_pillow = samples(opened(root, kind, decoder="pillow", workers=0))
    differences = [(one.int() - two.int()).abs().max() for one, two in zip(read[0], of_pillow, strict=True)]
    assert max(differences) <= (0 if name == "pillow" else LEVELS)


def test_shrunk_and_selected_images_are_those_of_pillow_within_two_levels(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    options = {"workers": 0, "shrink_px": 12, "max_train_images": 8, "max_val_images": 5}
    one, other = (opened(root, "imagefolder", decoder=decoder, **options) for decoder in DECODERS)
    assert (one.num_train, one.num_val) == (other.num_train, other.num_val) == (8, 5)
    for index in range(8):
        small, expected = one.train.image(index), other.train.image(index)
        assert size_of(small) == size_of(expected) == (12, 16)
        difference = np.asarray(to_pillow(small)).astype(int) - np.asarray(expected)
        assert np.abs(difference).max() <= LEVELS
    small = opened(root, "imagefolder", workers=0, shrink_px=500).train.image(0)
    assert isinstance(small, torch.Tensor)  # kept decoded


def test_coco_samples_are_those_of_pillow_within_two_levels(tmp_path: Path) -> None:
    root = str(write_coco(tmp_path))
    read = []
    for decoder in DECODERS:
        options = CocoOptions(root=root, workers=0, shorter_side_px=48, longer_side_px=80, decoder=decoder)
        data = build_coco_data(options, with_masks=False, seed=0)
        loader = train_loader(data, global_batch_size=4, micro_batch_size=2)
        read.append([image for batch in loader for image in batch.images])
    for one, other in zip(*read, strict=True):
        assert (one.int() - other.int()).abs().max() <= LEVELS
