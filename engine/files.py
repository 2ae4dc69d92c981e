"""Files that are either wholly there or not at all, whatever moment the machine dies."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".writing"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to the disk, then give it the name."""
    # A name of its own: another process may write the same file.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file in UTF-8, wholly or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left half written in a folder."""
    for leftover in folder.glob("*" + TEMPORARY_SUFFIX):
        leftover.unlink()


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk too; a rename alone may be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
