"""Meetings of all processes, for which each one waits as long as it takes."""

import contextlib
import weakref
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from engine.errors import UserError
from engine.records.console import warn

REMARK_AFTER = timedelta(minutes=5)
_NO_LIMIT = timedelta(days=365)  # gloo wants one


class ProcessLost(UserError):
    """Another process of the run ended while this one waited for it, or cannot be reached."""

    on_every_process = False


class Meetings:
    """A gloo group without a time limit: a wait ends when all are there, or when a connection breaks.

    All processes make it at the same time. Raises ProcessLost.
    """

    def __init__(self) -> None:
        try:
            group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_NO_LIMIT))
        except RuntimeError as error:
            raise ProcessLost(
                f"gloo cannot connect the processes: {error}; unless one of them ended, the machines of the "
                "run must reach each other on every port, over the interface that GLOO_SOCKET_IFNAME names"
            ) from error
        self._group = weakref.ref(group)  # its threads end with the group, which torch keeps until then

    def meet(self, what: str) -> None:
        """Wait until all processes have come to the meeting `what`. Raises ProcessLost.

        Every few minutes one of those who wait says so.
        """
        token, group, rank = torch.zeros(1), self._group(), dist.get_rank()
        # The first wait is for the main process, which cannot say that it is late itself.
        said_of = {0: "other processes", 1: "the main process"}.get(rank)
        _wait(dist.broadcast(token, src=0, group=group, async_op=True), what, said_of)
        said_of = "other processes" if rank == 0 else None
        _wait(dist.all_reduce(token, group=group, async_op=True), what, said_of)


def _wait(work: dist.Work | None, what: str, said_of: str | None) -> None:
    """Wait for the work's end; say for whom, unless `said_of` is None."""
    assert work is not None  # as this process belongs to the group
    rounds = 0
    while not work.is_completed():
        with contextlib.suppress(RuntimeError):  # not yet, or a failure, which the last wait raises
            work.wait(REMARK_AFTER)
        rounds += 1
        if said_of and not work.is_completed():
            warn(f"waiting for {said_of} for {rounds * REMARK_AFTER} so far: {what}")
    try:
        work.wait()
    except RuntimeError as error:
        raise ProcessLost(
            f"another process has ended while this one waited for it ({what}); its message says why, or the "
            "kernel's log if it was killed, as for want of memory"
        ) from error
