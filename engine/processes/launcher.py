"""Ends a process whose launcher, torchrun or a sweep, was killed and could not end it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

# The launcher's process id, from a launcher of our own to the processes it starts.
LAUNCHER = "PWLU_LAUNCHER"
_CHECK_SECONDS = 0.5
_STORE_SECONDS = 5.0
_ORPHANED = (
    b"error: the torchrun or sweep that started this process was killed, so the process ends too; the same "
    b"command goes on from the last checkpoint\n"
)


def end_with_launcher(status: int) -> None:
    """Leave with `status`, whatever this process is doing, once the launcher that started it is gone.

    A process that a shell or a scheduler started has none: it outlives its terminal.
    """
    launcher = _launcher()
    if launcher is not None:
        threading.Thread(target=_leave_without, args=(launcher, status), daemon=True).start()


def _launcher() -> int | None:
    """Return the launcher's process id; 0 if it is already gone, None if there is none to be seen."""
    if LAUNCHER in os.environ:
        return int(os.environ[LAUNCHER])
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    torchrun = next((process for process in _ancestors() if _is_torchrun(process)), None)
    return 0 if torchrun is None and _store_is_gone() else torchrun


def _store_is_gone() -> bool:
    """Return whether the store refuses connections, which torchrun opens before it starts a process."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(address, timeout=_STORE_SECONDS).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return False  # torchrun is hidden, for example outside a container


def _leave_without(launcher: int, status: int) -> NoReturn:
    # A thread, as the main one may wait in a rendezvous or collective, where Python handles no signal.
    while launcher in _ancestors():
        time.sleep(_CHECK_SECONDS)
    try:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            os.write(2, _ORPHANED)  # sys.stderr may be locked by the main thread
    finally:
        os._exit(status)  # to save could take minutes, while the same command is given again


def _ancestors() -> Iterator[int]:
    """Yield the parent, its parent and so on; the parent alone where there is no /proc, as on macOS."""
    process = os.getppid()
    while process > 0:
        yield process
        try:
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        except OSError:
            return
        process = int(after_name.split()[1])


def _is_torchrun(process: int) -> bool:
    # torchrun has loaded torch. What adopts orphans (init, systemd) has not, nor have scripts in between.
    try:
        return "libtorch" in Path(f"/proc/{process}/maps").read_text()
    except OSError:  # no /proc, or a process that may not be looked at
        return process != 1
