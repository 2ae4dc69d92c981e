"""Stopping at a signal, which a cluster sends some seconds before it takes the machine away."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PARENT_CHECK_SECONDS = 1.0


class StopRequest:
    """Remembers, inside its context, that one of STOP_SIGNALS came, which interrupts nothing.

    The training loop asks `requested` at each step and tells the other processes; all save together.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        return bool(self.signal_name)

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal() returned

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Let the signals wait for the end of the block, in this thread and the processes started there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only(worker_id: int = 0) -> None:
    """Let only its training process end a data loading process; for `DataLoader(worker_init_fn=...)`."""
    # torchrun and SLURM signal whole process groups. A loading process that died of it would end the training
    # with an error before it could save. macOS does not tell a signal's sender; nothing changes there.
    parent = multiprocessing.parent_process()
    if hasattr(signal, "sigtimedwait") and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=_leave_with, args=(parent, os.getppid()), daemon=True).start()


def _leave_with(parent: multiprocessing.process.BaseProcess, starter: int) -> None:
    while parent.is_alive() and os.getppid() == starter:
        received = signal.sigtimedwait(STOP_SIGNALS, _PARENT_CHECK_SECONDS)
        if received is not None and received.si_pid == parent.pid:
            break
    os._exit(0)
