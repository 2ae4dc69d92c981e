"""Files that are either wholly there or not at all, whatever moment the machine dies."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engine.errors import UserError
from engine.records.console import warn_first_time

TEMPORARY_SUFFIX = ".writing"
# Answers of a file system that cannot do what is asked; a disk's failures (EIO, ENOSPC) are others.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_UNSUPPORTED_FOR_FOLDERS = (*UNSUPPORTED, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)


class FolderError(UserError, ValueError):
    """A folder in which no file can be made; the message says why."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to the disk, then give it the name.

    Raises OSError, which names the file; `path` is then as it was.
    """
    # A name of its own: another process may write the same file, as an index of shared data.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with named_errors(path), open(temporary, "wb") as file:
            write(file)
            file.flush()
            _sync_file(file.fileno(), path)
        os.replace(temporary, path)
    except Exception:
        with contextlib.suppress(OSError):
            temporary.unlink()  # a full disk needs its room
        raise
    _sync_folder(path.parent)


def require_writable(folder: Path) -> None:
    """Raise FolderError, before anything takes long, where no file can be made in a folder, new or not."""
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise FolderError(f"{place} is no folder; name one, or a new one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FolderError(
            f"nothing can be written to {place}, which is read-only or belongs to another user; name another"
        )


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file in UTF-8, wholly or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Let OSErrors of the block name a file; those of writing, flushing and closing do not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left half written in a folder."""
    for leftover in folder.glob("*" + TEMPORARY_SUFFIX):
        leftover.unlink()


def _sync_file(handle: int, path: Path) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        warn_first_time(
            "sync of files",
            f"{path}: this file system does not force files to the disk (fsync: {error.strerror}); a power "
            "cut may lose the last checkpoints",
        )


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk too; a rename alone may be lost with the power."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED_FOR_FOLDERS:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        warn_first_time(
            "sync of folders",
            f"{folder}: this file system does not force folders to the disk (fsync: {error.strerror}); files "
            "are, but a power cut may bring back an older one of the same name",
        )
