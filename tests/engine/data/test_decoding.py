"""Pictures become RGB in 8 bits without loss, or are an error that names them."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset.writer import TarWriter

from engine.data import BrokenImageError, ImageOptions, build_data
from engine.data.coco import CocoOptions, build_coco_data
from engine.data.decoding import decode_rgb
from tests.engine.data.coco.coco_files import write_coco
from tests.engine.data.loading import val_loader
from tests.engine.image_files import write_folder, write_shards

WIDE = np.linspace(0, 65_535, 64).round().reshape(8, 8)


def encoded(image: Image.Image | np.ndarray, suffix: str) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format=Image.registered_extensions()[suffix])
    return file.getvalue()


def png_of_16_bits(pixels: np.ndarray, color_type: int) -> bytes:
    """Encode uint16 (height, width, channels); Pillow writes grey alone."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (encoded(WIDE.astype(np.uint16), ".png"), "I;16"),
        (encoded(WIDE.astype(np.uint16), ".tif"), "I;16"),
        (encoded(WIDE.astype(">u2"), ".tif"), "I;16B"),
        (encoded(WIDE.astype(np.int32), ".tif"), "I"),
        (encoded(WIDE.astype(np.float32) / 65_535, ".tif"), "F"),
        (encoded(WIDE.astype(np.uint16), ".pgm"), "I"),
        (b"P5 8 8 4095\n" + (WIDE // 16).astype(">u2").tobytes(), "I"),  # 12 bits
        (b"Pf 8 8 -1.0\n" + (WIDE / 65_535).astype("<f4").tobytes(), "F"),
        (png_of_16_bits(WIDE[..., None], 0), "I;16"),
    ],
)
def test_values_that_do_not_fit_8_bits_are_an_error_that_names_file_and_mode(data: bytes, mode: str) -> None:
    with pytest.raises(BrokenImageError, match=f"the image photos/x: mode {mode} .*scale them to 0 .. 255"):
        decode_rgb(data, "photos/x")


def test_a_tiff_that_pillow_does_not_read_is_not_said_to_be_damaged() -> None:
    eight = encoded(np.stack([WIDE // 257] * 3, axis=2).astype(np.uint8), ".tif")
    bits = struct.pack("<3H", 8, 8, 8)
    assert eight.count(bits) == 1
    with pytest.raises(BrokenImageError, match="photos/x: a TIFF of a kind .*save it with 8 bits"):
        decode_rgb(eight.replace(bits, struct.pack("<3H", 32, 32, 32)), "photos/x")


@pytest.mark.parametrize("kind", ["imagefolder", "webdataset", "coco"])
def test_they_are_an_error_in_each_kind_of_data(tmp_path: Path, kind: str) -> None:
    """A network trained on them would have seen white: Pillow clips at 255."""
    wide = encoded(WIDE.astype(np.uint16), ".png")
    if kind == "coco":
        path = write_coco(tmp_path) / "val2017" / f"{302:012d}.png"
        with Image.open(path) as image:
            path.write_bytes(encoded(np.full(image.size[::-1], 40_000, np.uint16), ".png"))
        options = CocoOptions(root=str(tmp_path), workers=0)
        data, name = build_coco_data(options, with_masks=False, seed=0), "000000000302.png (image 3020 of "
    elif kind == "imagefolder":
        (write_folder(tmp_path) / "val" / "ant" / "wide.png").write_bytes(wide)
        data, name = build_data(ImageOptions(root=str(tmp_path), workers=0), seed=0), "val/ant/wide.png"
    else:
        write_shards(tmp_path)
        with TarWriter(str(tmp_path / "val-0002.tar"), encoder=False) as writer:
            writer.write({"__key__": "wide", "png": wide, "cls": b"0"})
        options = ImageOptions(kind="webdataset", root=str(tmp_path), workers=0)
        data, name = build_data(options, seed=0), "'wide.png', number 0 of val-0002.tar"
    with pytest.raises(BrokenImageError, match=f"{re.escape(name)}.*mode I;16 .*8 bits") as caught:
        list(val_loader(data))
    assert "download" not in str(caught.value)


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_and_alpha_of_16_bits_are_read_by_the_upper_8(color_type: int, channels: int) -> None:
    pixels = np.stack([WIDE, WIDE.T, WIDE[::-1], WIDE], axis=2)[..., :channels].astype(np.uint16)
    colours = pixels[..., :3] if channels > 2 else pixels[..., [0, 0, 0]]
    assert np.array_equal(np.asarray(decode_rgb(png_of_16_bits(pixels, color_type), "x")), colours >> 8)


def test_16_bit_ppm_is_read_by_the_upper_8() -> None:
    pixels = np.stack([WIDE, WIDE.T, WIDE[::-1]], axis=2).astype(np.uint16)
    data = b"P6 8 8 65535\n" + pixels.astype(">u2").tobytes()
    assert np.abs(np.asarray(decode_rgb(data, "x")).astype(int) - pixels / 257).max() <= 0.51


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *((mode, ".png") for mode in ("1", "L", "LA", "P", "RGBA")),
        *((mode, ".tif") for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB")),
        ("CMYK", ".jpg"),
        ("L", ".webp"),
    ],
)
def test_8_bit_modes_become_the_rgb_they_show(mode: str, suffix: str) -> None:
    shown = np.tile(np.repeat(np.arange(0, 256, 17, dtype=np.uint8), 2), (32, 1))
    if mode == "1":
        shown = np.where(shown > 127, 255, 0).astype(np.uint8)
    if mode == "LAB":
        grey = np.stack([shown, np.zeros_like(shown), np.zeros_like(shown)], axis=2)
        image = Image.frombytes("LAB", (32, 32), grey.tobytes())
    else:
        first = "P" if mode == "PA" else "RGB" if mode in ("CMYK", "YCbCr") else "L"
        image = Image.fromarray(shown).convert(first).convert(mode)
    read = np.asarray(decode_rgb(encoded(image, suffix), "x")).astype(int)
    if mode == "LAB":  # lightness is no linear measure of grey
        assert (np.diff(read[0, ::2, 1]) > 0).all() and read[0, 0].max() <= 1 and read[0, -1].min() >= 254
    else:
        assert np.abs(read - shown[..., None]).max() <= (8 if suffix in (".jpg", ".webp") else 2)
