"""Stopping in time: a cluster that needs the machine sends a signal some seconds before it takes it away."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PARENT_CHECK_SECONDS = 5.0


class StopRequest:
    """Remembers that one of STOP_SIGNALS came, while it is used as a context.

    The signal itself interrupts nothing. The training loop asks `requested` at each step, tells the other
    processes, and all of them save together (`engine.training.loop`).
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """True once a signal came to this process."""
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
def stop_signals_held() -> Iterator[None]:
    """Inside the block the signals wait, for this thread and for the processes started there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only(worker_id: int = 0) -> None:
    """Let a data loading process live on when the signals reach it; for `DataLoader(worker_init_fn=...)`.

    torchrun and SLURM signal whole process groups, but the decision to stop is the training process's: a
    loading process that died of the signal would end the training with an error before it could save. Only
    its own training process may end it so, as PyTorch does when a program fails, or by dying. Where a
    signal's sender cannot be known (macOS) nothing changes.
    """
    parent = multiprocessing.parent_process()
    if hasattr(signal, "sigtimedwait") and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=_leave_with, args=(parent, os.getppid()), daemon=True).start()


def _leave_with(parent: multiprocessing.process.BaseProcess, starter: int) -> None:
    """Wait for the end of the process that uses this one, and of the one that forked it (mostly the same)."""
    while parent.is_alive() and os.getppid() == starter:
        received = signal.sigtimedwait(STOP_SIGNALS, _PARENT_CHECK_SECONDS)
        if received is not None and received.si_pid == parent.pid:
            break
    os._exit(0)
