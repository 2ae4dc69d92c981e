"""From an image file's bytes to a picture, by the decoder that `data.decoder` names.

Pillow reads every header, so what is refused does not depend on the decoder, and decodes what simplejpeg does
not: that takes JPEG files of 8 bits in colour or grey. Both give the same pixels at full size, as stored: an
EXIF orientation turns nothing.
"""

import importlib
import io
from collections.abc import Callable
from functools import partial

import torch
from PIL import Image, ImageMode, UnidentifiedImageError

from engine.data.picture import EncodedPicture, Picture, to_tensor
from engine.data.source import BrokenImageError, DataError
from pwlu.suggestion import expected_one_of

DECODERS = ("simplejpeg", "pillow")

_EIGHT_BITS = ("|u1", "|b1")  # numpy's names for the values of a mode
_TIFF = (b"II*\0", b"MM\0*")


def require_decoder(name: str) -> None:
    """Raise ValueError for a name that is not in DECODERS, DataError where its package is missing."""
    if name not in DECODERS:
        raise ValueError(expected_one_of("data.decoder", name, DECODERS))
    if name == "simplejpeg":
        try:
            importlib.import_module("simplejpeg")
        except ImportError as error:
            raise DataError(
                f"data.decoder=simplejpeg: {error}; `pip install simplejpeg`, or set data.decoder=pillow"
            ) from error


def decode_rgb(
    data: bytes,
    name: str,
    decoder: str = "pillow",
    *,
    remedy: str = "repair or remove it, or set data.broken_images=skip",
) -> Picture:
    """Return the picture in an image file's bytes, whatever its 8-bit mode (grey, palette, CMYK, alpha).

    Raises BrokenImageError, which names the image: for bytes that are no whole image, with the `remedy`, and
    for values that do not fit 8 bits. simplejpeg's pictures raise it when they are decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            if ImageMode.getmode(mode).typestr in _EIGHT_BITS:
                if decoder == "simplejpeg" and image.format == "JPEG" and mode in ("RGB", "L"):
                    by_pillow = partial(decode_rgb, data, name, remedy=remedy)
                    return EncodedPicture(partial(_simplejpeg, data, by_pillow), image.size[::-1])
                return image.convert("RGB")
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


def _simplejpeg(data: bytes, by_pillow: Callable[[], Picture], height: int, width: int) -> torch.Tensor:
    """Return a tensor of at least this size: scaled by 1/2 or less where that leaves as much, else whole."""
    import simplejpeg  # data.decoder=pillow does without

    try:
        pixels = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=2)
    except ValueError:  # Pillow says what is wrong with the file, or reads it after all
        return to_tensor(by_pillow())
    return torch.from_numpy(pixels).permute(2, 0, 1)
