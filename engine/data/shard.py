"""What one tar shard holds: its samples, found by their headers, and the images that belong to no sample."""

import re
import tarfile
import zlib
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from torchvision.datasets.folder import IMG_EXTENSIONS
from webdataset.tariterators import base_plus_ext

from engine.data.source import DataError, is_hidden
from engine.records.console import listed

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")
_LABEL = "cls"
_PICTURES = {extension.lstrip(".") for extension in IMG_EXTENSIONS} | {"avif", "gif", "heic", "jfif", "jxl"}
_METADATA = re.compile(r"__[^/]*__($|/)")  # members that webdataset reserves for itself
_BLOCK = tarfile.BLOCKSIZE

HIDDEN = "their names are hidden or reserved"
NOT_PLAIN = "a sample's image is its name up to the first dot and jpg, jpeg or png"


@dataclass(frozen=True)
class ShardContent:
    """The samples of one shard, in the order of their images."""

    # (5, samples): offset and length of the image, label, offset of the label, `checksum`
    columns: npt.NDArray[np.int64]
    left_out: dict[str, list[str]]  # reason -> names of the images that belong to no sample
    is_empty: bool


@dataclass
class _Members:
    """Members by key, which is a name up to the first dot after the last slash."""

    images: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)  # offset, length, header
    labels: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)  # class, offset, first block
    not_plain: dict[str, list[str]] = field(default_factory=dict)  # names such as c.seg.png, d.coarse.cls
    hidden: list[str] = field(default_factory=list)  # names of images
    is_empty: bool = True  # there are folders and hidden members at most


def read_shard(shard: Path) -> ShardContent:
    """Read the headers and labels of a shard.

    Raises DataError for a file that is cut off or goes on after its end, and for half a sample.
    """
    try:
        with shard.open("rb") as file:
            members = _read_members(file, shard)
    except OSError as error:
        raise DataError(f"{shard}: cannot be read: {error.strerror}") from error
    except tarfile.TarError as error:
        raise DataError(f"{shard}: not a whole uncompressed tar file: {error}") from error
    not_plain = [name for names in members.not_plain.values() for name in names if _last(name) != _LABEL]
    left_out = {HIDDEN: members.hidden, NOT_PLAIN: not_plain}
    if not members.is_empty:
        _require_whole_samples(members, shard)
    rows = []
    for key, (offset, length, header) in members.images.items():
        label, label_offset, block = members.labels[key]
        rows.append((offset, length, label, label_offset, checksum(header, block)))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return ShardContent(columns, left_out, members.is_empty)


def read_image(
    shard: Path, offset: int, length: int, label_offset: int, expected: int
) -> tuple[str, bytes] | None:
    """Return name and bytes of the image at `offset`; None unless the sample has that checksum."""
    start = offset - _BLOCK
    with shard.open("rb") as file:
        # In the order of the file: image and label are neighbours, as a rule.
        label = _block(file, label_offset) if label_offset < start else b""
        file.seek(start)
        image = file.read(_BLOCK + length)
        label = label or _block(file, label_offset)
    unchanged = len(image) == _BLOCK + length and checksum(image[:_BLOCK], label) == expected
    return (_name(image[:_BLOCK]), image[_BLOCK:]) if unchanged else None


def member_name(file: IO[bytes], offset: int) -> str:
    """Return the name of the member whose content begins at `offset` of a shard."""
    return _name(_block(file, offset - _BLOCK))


def checksum(image_header: bytes, label_block: bytes) -> int:
    """Return the CRC-32 of two blocks (512 bytes): an image's header (name, size), and its label's text."""
    return zlib.crc32(label_block, zlib.crc32(image_header))


def _read_members(file: IO[bytes], shard: Path) -> _Members:
    members = _Members()
    if not file.read(1):
        return members
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            _sort_in(member, members, file, shard)
    _require_end(file, tar.offset, shard)
    return members


def _sort_in(member: tarfile.TarInfo, members: _Members, file: IO[bytes], shard: Path) -> None:
    """Add a member to those of its kind, if it is an image or a label."""
    name, last = member.name, _last(member.name)
    is_label = last == _LABEL
    if _is_no_data(name):
        if last in _PICTURES:
            members.hidden.append(name)
        return
    members.is_empty &= member.isdir()
    if member.isdir() or not (is_label or last in _PICTURES):
        return
    if not member.isreg() or member.issparse():
        remedy = "pack it with tar --dereference --hard-dereference, and without --sparse"
        raise DataError(
            f"{shard}: {name!r} is a link or a sparse file, which cannot be read in place; {remedy}"
        )
    key, extension = base_plus_ext(name)
    if extension is None or extension.lower() not in (_LABEL, *IMAGE_EXTENSIONS):
        members.not_plain.setdefault(key or name, []).append(name)
        return
    if key in (members.labels if is_label else members.images):
        raise DataError(
            f"{shard}: two {'labels' if is_label else 'images'} for the sample {key!r}; pack it anew"
        )
    if is_label:
        block = _block(file, member.offset_data)
        members.labels[key] = _class_number(block[: member.size], name, shard), member.offset_data, block
    else:
        header = _block(file, member.offset_data - _BLOCK)
        members.images[key] = member.offset_data, member.size, header


def _name(header: bytes) -> str:
    return tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape").name


def _last(name: str) -> str:
    """Return what follows the last dot of a member's base name, in lower case."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def _is_no_data(name: str) -> bool:
    parts = (part for part in name.split("/") if part not in (".", ".."))
    return any(map(is_hidden, parts)) or _METADATA.match(name) is not None


def _block(file: IO[bytes], offset: int) -> bytes:
    file.seek(offset)
    return file.read(_BLOCK)


def _class_number(text: bytes, name: str, shard: Path) -> int:
    if not text.strip().isdigit() or int(text) > np.iinfo(np.int64).max:
        raise DataError(f"{shard}: {name}: expected a class number 0, 1, 2 ..., got {text[:40]!r}")
    return int(text)


def _require_end(file: IO[bytes], end: int, shard: Path) -> None:
    """Raise DataError unless there is a block of zeros at `end`, and nothing but zeros after it."""
    if _block(file, end) != bytes(_BLOCK):
        raise DataError(f"{shard}: the file is cut off or damaged after {end} bytes; copy it again")
    while chunk := file.read(1 << 20):
        if chunk.count(0) != len(chunk):
            raise DataError(
                f"{shard}: the archive ends after {end} bytes, the file does not; if `cat` joined two "
                "archives, keep each as a shard, or join them with `tar --concatenate`; if the rest is no "
                f"data, `truncate --size={end + 2 * _BLOCK} FILE` cuts it off"
            )


def _require_whole_samples(members: _Members, shard: Path) -> None:
    """Raise DataError for an image without label, a label without image, or no sample at all."""
    halves = sorted((members.images.keys() ^ members.labels.keys()) | _meant_as_samples(members))
    if members.images and not halves:
        return
    found = f"{len(halves)} lack one of them: " + "; ".join(_lacking(key, members) for key in halves[:3])
    if not halves:
        others = [*members.hidden, *chain.from_iterable(members.not_plain.values())]
        found = "there is no sample" + (f", but {listed(others)}" if others else "")
    raise DataError(
        f"{shard}: a sample is a jpg, jpeg or png and a cls with the same name up to its first dot; {found}"
    )


def _meant_as_samples(members: _Members) -> set[str]:
    """Return the keys that have image and label under longer names only: p.2020.1.jpg, p.2020.1.cls."""
    return {
        key
        for key, names in members.not_plain.items()
        if key not in members.images and len({_last(name) == _LABEL for name in names}) == 2
    }


def _lacking(key: str, members: _Members) -> str:
    kinds = {"jpg, jpeg or png": members.images, _LABEL: members.labels}
    lacking = " and no ".join(kind for kind, found in kinds.items() if key not in found)
    others = members.not_plain.get(key)
    return f"{key!r} has no {lacking}" + (f" but {listed(others)}" if others else "")
