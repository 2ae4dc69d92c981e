"""From an image file's bytes to a picture, by the decoder that `data.decoder` names.

Pillow reads every header, so what is refused does not depend on the decoder, and decodes what the others do
not: theirs are JPEG files of 8 bits in colour or grey. All of them give the same pixels, as stored: an EXIF
orientation turns nothing.
"""

import io
from collections.abc import Callable
from functools import partial

import torch
from PIL import Image, ImageMode, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from engine.data.picture import Picture, to_tensor
from engine.data.source import BrokenImageError, DataError
from pwlu.suggestion import expected_one_of

Decoder = Callable[[bytes, Image.Image], Picture]  # from a file's bytes, and those opened by Pillow

_EIGHT_BITS = ("|u1", "|b1")  # numpy's names for the values of a mode
_TIFF = (b"II*\0", b"MM\0*")


def by_pillow(data: bytes, opened: Image.Image) -> Picture:
    """Return an image of Pillow in RGB."""
    return opened.convert("RGB")


def _by_jpeg_decoder(
    decode: Callable[[bytes], torch.Tensor], data: bytes, opened: Image.Image
) -> torch.Tensor:
    """Return a tensor, uint8 (3, height, width)."""
    if opened.format == "JPEG" and opened.mode in ("RGB", "L"):
        try:
            return decode(data)
        except (RuntimeError, ValueError):
            pass  # Pillow says what is wrong with the file, or reads it after all
    return to_tensor(opened.convert("RGB"))


def _torchvision(data: bytes) -> torch.Tensor:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: torch.Tensor = decode_jpeg(encoded, ImageReadMode.RGB)
    return pixels


def _simplejpeg(data: bytes) -> torch.Tensor:
    import simplejpeg  # an optional package

    return torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)


_JPEG_DECODERS = {"torchvision": _torchvision, "simplejpeg": _simplejpeg}
DECODERS: dict[str, Decoder] = {
    "pillow": by_pillow,
    **{name: partial(_by_jpeg_decoder, decode) for name, decode in _JPEG_DECODERS.items()},
}


def decoder_named(name: str) -> Decoder:
    """Return one of DECODERS. Raises ValueError for another name, DataError where its package is missing."""
    if name not in DECODERS:
        raise ValueError(expected_one_of("data.decoder", name, DECODERS))
    if name in _JPEG_DECODERS:
        # Else every image would quietly be decoded by Pillow where torchvision was built without JPEG.
        file = io.BytesIO()
        Image.new("RGB", (1, 1)).save(file, "JPEG")
        try:
            _JPEG_DECODERS[name](file.getvalue())
        except (ImportError, RuntimeError) as error:
            raise DataError(
                f"data.decoder={name}: this decoder is not there: {error}; `pip install {name}`, or set "
                "data.decoder=pillow"
            ) from error
    return DECODERS[name]


def decode_rgb(
    data: bytes,
    name: str,
    decoder: Decoder = by_pillow,
    *,
    remedy: str = "repair or remove it, or set data.broken_images=skip",
) -> Picture:
    """Decode an image file's bytes to RGB, whatever its 8-bit mode (grey, palette, CMYK, with alpha).

    Raises BrokenImageError, which names the image: for bytes that are no whole image, with the `remedy`, and
    for values that do not fit 8 bits.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            if ImageMode.getmode(mode).typestr in _EIGHT_BITS:
                return decoder(data, image)
    except MemoryError:
        raise
    # Pillow reports broken data as OSError, SyntaxError, struct.error ...: the bytes are in memory, so each
    # of them means broken data.
    except Exception as error:
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):  # names the buffer by its address
            reason = "no image format known"
            if data.startswith(_TIFF):
                reason = (
                    "a TIFF of a kind that Pillow does not read, such as floats in RGB; save it with 8 bits"
                )
        raise BrokenImageError(f"cannot decode the image {name}: {reason}; {remedy}") from error
    # Pillow would clip: everything over 255 would be white, floats from 0 to 1 black. Which range is meant
    # only the user knows.
    raise BrokenImageError(
        f"cannot use the image {name}: mode {mode} has values that do not fit 8 bits; scale them to 0 .. 255 "
        "and save it with 8 bits, all images of the data set by one factor (see docs/data.md)"
    )
