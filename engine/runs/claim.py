"""One start of a run at a time: two in one folder would mix their records and overwrite their checkpoints."""

import contextlib
import errno
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.training.checkpoint import CheckpointError

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def claimed(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder, which is made if need be, for the block.

    The claim ends with the process, however it ends; loading processes do not inherit it. `warn` is told
    where the file system has no locks.

    Raises:
        CheckpointError: another process, on this machine or another one, holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise CheckpointError(
                    f"{folder} is in use: another start of this run is at work there; wait for its end, or "
                    "name another folder with output=..."
                ) from error
            warn(f"{folder}: no lock can be taken here ({error}); do not start this run twice at a time")
        yield
