"""Where each sample lies inside its tar shard: found by reading the headers once, kept in a small file.

`python -m engine.data ROOT` writes ROOT/index-train.npz and ROOT/index-val.npz.
"""

import re
import tarfile
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from webdataset.tariterators import base_plus_ext

from engine.data.source import DataError, Labels
from engine.files import write_atomically
from engine.records.console import warn

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")
_METADATA = re.compile(r"__[^/]*__($|/)")  # members that webdataset reserves for itself
_END_OF_ARCHIVE = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one split, in the order of the shards' names and of the members inside."""

    shard_names: npt.NDArray[np.str_]  # (shards,)
    shard_bytes: npt.NDArray[np.int64]  # (shards,) file sizes, to notice other shards under the same names
    shard_sizes: npt.NDArray[np.int64]  # (shards,) numbers of samples
    offsets: npt.NDArray[np.int64]  # (samples,) of the image's first byte in its shard
    lengths: npt.NDArray[np.int64]  # (samples,) of the image in bytes
    labels: Labels  # (samples,)


def load_or_scan(root: Path, split: str) -> ShardIndex:
    """Return the index of root/<split>-*.tar: the one on disk, otherwise one made by reading the headers.

    Raises DataError for missing, damaged or unlabelled shards, and for an index of other shards.
    """
    shards, path = _shards(root, split), _index_path(root, split)
    if path.exists():
        return _load(path, shards)
    hint = f"python -m engine.data {root}"
    warn(f"reading the headers of {len(shards)} shards; `{hint}` saves that")
    return _scan(shards)


def write_index(root: Path, split: str) -> Path:
    """Write the index of root/<split>-*.tar and return its path. Raises as load_or_scan does."""
    path, columns = _index_path(root, split), asdict(_scan(_shards(root, split)))
    write_atomically(path, lambda file: np.savez(file, **columns))
    return path


def _shards(root: Path, split: str) -> list[Path]:
    shards = sorted(root.glob(f"{split}-*.tar"))
    if not shards:
        raise DataError(f"root: no shards {root}/{split}-*.tar; expected train-*.tar and val-*.tar in {root}")
    return shards


def _scan(shards: list[Path]) -> ShardIndex:
    found = [_scan_shard(shard) for shard in shards]
    offsets, lengths, labels = np.concatenate(found, axis=1)
    return ShardIndex(
        shard_names=np.array([shard.name for shard in shards]),
        shard_bytes=np.array([shard.stat().st_size for shard in shards], dtype=np.int64),
        shard_sizes=np.array([rows.shape[1] for rows in found], dtype=np.int64),
        offsets=offsets,
        lengths=lengths,
        labels=labels,
    )


def _scan_shard(shard: Path) -> npt.NDArray[np.int64]:
    """Return (3, samples): offset, length and label of each sample."""
    try:
        with tarfile.open(shard, "r:") as tar:
            images, labels = _pairs(tar, shard)
            end = tar.offset
    except tarfile.TarError as error:
        raise DataError(f"{shard}: not a whole uncompressed tar file: {error}") from error
    _require_end_of_archive(shard, end)
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired or not images:
        found = f"{unpaired[0]!r} lacks one of them" if unpaired else "there is no sample"
        raise DataError(f"{shard}: a sample is a jpg, jpeg or png and a cls; {found}")
    rows = [(*place, labels[key]) for key, place in images.items()]
    return np.array(rows, dtype=np.int64).T


def _pairs(tar: tarfile.TarFile, shard: Path) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    for member in tar:
        key, extension = base_plus_ext(member.name)
        if not member.isreg() or key is None or _METADATA.match(member.name):
            continue
        if extension == "cls":
            labels[key] = _read_label(tar, member, shard)
        elif extension.lower() in IMAGE_EXTENSIONS:
            if key in images:
                raise DataError(f"{shard}: two images for the sample {key!r}")
            images[key] = (member.offset_data, member.size)
    return images, labels


def _read_label(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    content = tar.extractfile(member)
    assert content is not None  # None only for what is no regular file
    text = content.read()
    if not text.strip().isdigit():
        raise DataError(f"{shard}: {member.name}: expected a class number 0, 1, 2 ..., got {text[:40]!r}")
    return int(text)


def _require_end_of_archive(shard: Path, offset: int) -> None:
    """Raise DataError unless the zero block that ends every whole tar file stands at `offset`."""
    with shard.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != _END_OF_ARCHIVE:
            raise DataError(f"{shard}: the file is cut off or damaged after {offset} bytes; copy it again")


def _index_path(root: Path, split: str) -> Path:
    return root / f"index-{split}.npz"


def _load(path: Path, shards: list[Path]) -> ShardIndex:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns: dict[str, Any] = {field.name: arrays[field.name] for field in fields(ShardIndex)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an index of shards ({error}); {_how_to_renew(path)}") from error
    index = ShardIndex(**columns)
    now = [(shard.name, shard.stat().st_size) for shard in shards]
    if now != list(zip(index.shard_names.tolist(), index.shard_bytes.tolist(), strict=True)):
        raise DataError(f"{path}: made from other shards than those beside it; {_how_to_renew(path)}")
    return index


def _how_to_renew(path: Path) -> str:
    return f"delete it or run python -m engine.data {path.parent}"
