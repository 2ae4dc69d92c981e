"""Where each sample lies inside its tar shard: found by reading the headers once, kept in a small file.

`python -m engine.data ROOT` writes ROOT/index-train.npz and ROOT/index-val.npz.
"""

import re
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.shard import HIDDEN, NOT_PLAIN, ShardContent, read_shard
from engine.data.source import DataError, Labels
from engine.files import write_atomically
from engine.records.console import listed, warn_on_main

# Compressed shards and those of a download that has not ended.
_NO_SHARD = re.compile(r"\.(tgz|tar(\.(gz|bz2|xz|zst|lz4|part|tmp|crdownload))?)$", re.IGNORECASE)


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one split, in the order of the shards' names and of the members inside."""

    shard_names: npt.NDArray[np.str_]  # (shards,)
    shard_bytes: npt.NDArray[np.int64]  # (shards,) file sizes, to notice other shards under the same names
    shard_times: npt.NDArray[np.int64]  # (shards,) of the last change in ns, for the same purpose
    shard_sizes: npt.NDArray[np.int64]  # (shards,) numbers of samples
    offsets: npt.NDArray[np.int64]  # (samples,) of the image's first byte in its shard
    lengths: npt.NDArray[np.int64]  # (samples,) of the image in bytes
    labels: Labels  # (samples,)
    label_offsets: npt.NDArray[np.int64]  # (samples,) of the label's first byte in its shard
    checksums: npt.NDArray[np.int64]  # (samples,) of engine.data.shard, to notice what sizes and times hide
    remarks: npt.NDArray[np.str_]  # sentences about images and shards left out


def load_or_scan(root: Path, split: str) -> ShardIndex:
    """Return the index of root/<split>-*.tar: the one on disk, or where it does not fit a new one.

    Raises DataError for missing, damaged or unlabelled shards.
    """
    shards, path = _shards(root, split), _index_path(root, split)
    index, reason = _load(path, shards) if path.exists() else (None, "")
    if index is None:
        hint = f"python -m engine.data {root}"
        warn_on_main(f"{reason}reading the headers of {len(shards)} shards; `{hint}` saves that")
        index = _scan(split, shards)
    _tell(index)
    return index


def write_index(root: Path, split: str) -> Path:
    """Write the index of root/<split>-*.tar and return its path. Raises as load_or_scan does."""
    path, index = _index_path(root, split), _scan(split, _shards(root, split))
    write_atomically(path, lambda file: np.savez(file, **asdict(index)))
    _tell(index)
    return path


def _tell(index: ShardIndex) -> None:
    for remark in index.remarks.tolist():
        warn_on_main(remark)


def _shards(root: Path, split: str) -> list[Path]:
    shards = sorted(root.glob(f"{split}-*.tar"))
    whole = {shard.stem for shard in shards}
    others = sorted(
        path.name
        for path in root.glob(f"{split}-*")
        if _NO_SHARD.sub("", path.name) not in {path.name, *whole}
    )
    left_out = f"{listed(others)}: only uncompressed files *.tar are read"
    if not shards:
        found = f"; found {left_out}" if others else ""
        raise DataError(
            f"root: no shards {root}/{split}-*.tar; expected train-*.tar and val-*.tar in {root}{found}"
        )
    if others:
        warn_on_main(f"{root}: left out {left_out}")
    return shards


def _scan(split: str, shards: list[Path]) -> ShardIndex:
    # Before they are read: a file that changes meanwhile is then noticed at the next start.
    identities = _identities(shards)
    contents = [read_shard(shard) for shard in shards]
    if all(content.is_empty for content in contents):
        raise DataError(f"root: {shards[0].parent}: each of the {len(shards)} shards {split}-*.tar is empty")
    offsets, lengths, labels, label_offsets, checksums = np.concatenate(
        [content.columns for content in contents], axis=1
    )
    return ShardIndex(
        shard_names=np.array([name for name, _, _ in identities]),
        shard_bytes=np.array([size for _, size, _ in identities], dtype=np.int64),
        shard_times=np.array([time for _, _, time in identities], dtype=np.int64),
        shard_sizes=np.array([content.columns.shape[1] for content in contents], dtype=np.int64),
        offsets=offsets,
        lengths=lengths,
        labels=labels,
        label_offsets=label_offsets,
        checksums=checksums,
        remarks=np.array(_remarks(split, shards, contents), dtype=np.str_),
    )


def _identities(shards: list[Path]) -> list[tuple[str, int, int]]:
    """Return name, size in bytes and time of the last change in ns of each."""
    try:
        found = [(shard.name, shard.stat()) for shard in shards]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def _remarks(split: str, shards: list[Path], contents: list[ShardContent]) -> list[str]:
    empty = [shard.name for shard, content in zip(shards, contents, strict=True) if content.is_empty]
    remarks = [f"{split}-*.tar: empty shards: {listed(empty)}"] if empty else []
    for reason in (HIDDEN, NOT_PLAIN):
        names = [
            f"{name!r} in {shard.name}"
            for shard, content in zip(shards, contents, strict=True)
            for name in content.left_out.get(reason, [])
        ]
        if names:
            remarks.append(f"{split}-*.tar: images left out, as {reason}: {listed(names)}")
    return remarks


def _index_path(root: Path, split: str) -> Path:
    return root / f"index-{split}.npz"


def _load(path: Path, shards: list[Path]) -> tuple[ShardIndex | None, str]:
    """Return the index, or None and what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns: dict[str, Any] = {field.name: arrays[field.name] for field in fields(ShardIndex)}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        return None, f"{path}: not an index of this version ({error}): "
    index = ShardIndex(**columns)
    known = zip(
        *(column.tolist() for column in (index.shard_names, index.shard_bytes, index.shard_times)),
        strict=True,
    )
    changed = {name for name, _, _ in set(known) ^ set(_identities(shards))}
    if changed:
        return None, f"{path}: shards have changed since, are new or gone: {listed(sorted(changed))}: "
    return index, ""
