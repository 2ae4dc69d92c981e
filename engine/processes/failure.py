"""What a process that fails says: once for all processes of a run, and to torchrun, which repeats it."""

import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from engine.errors import UserError, sentence_of
from engine.processes.meetings import ProcessLost
from engine.processes.preemption import stop_signals_blocked

_STORE_TIMEOUT = timedelta(seconds=2)


def report_failure(error: Exception) -> None:
    """Print what the user should know of an error: a sentence if he can mend it, else its traceback.

    Nothing is printed where another process of the run has said the same, or where the error only says that
    another one has failed.
    """
    rank, sentence = int(os.environ.get("RANK", 0)), sentence_of(error)
    cause = sentence or "".join(traceback.format_exception(error))
    text = f"{cause}error in process {rank}: {type(error).__name__}: {error}"
    if sentence:
        text = f"error in process {rank}: {sentence}" if rank else f"error: {sentence}"
    with contextlib.suppress(OSError):  # a log on a full disk
        sys.stdout.flush()
    # As soon as one process has left, torchrun ends the others.
    with contextlib.suppress(OSError), stop_signals_blocked():
        if _is_for_me(error, cause, for_user=bool(sentence)):
            print(text, file=sys.stderr, flush=True)


def _is_for_me(error: Exception, cause: str, *, for_user: bool) -> bool:
    """Return whether this process is to print the cause; tell torchrun unless another one's is the first."""
    if isinstance(error, UserError) and error.on_every_process and dist.is_initialized():
        _tell_torchrun(cause)
        return int(os.environ.get("RANK", 0)) == 0
    failures = _count("failures")
    if failures > 1 and _is_lost_peer(error):
        return False
    _tell_torchrun(cause)
    if failures == 0:  # rather twice than not at all; before they join, all processes do the same
        return dist.is_initialized() or not for_user or int(os.environ.get("LOCAL_RANK", 0)) == 0
    return _count(hashlib.sha256(cause.encode()).hexdigest()) <= 1


def _is_lost_peer(error: Exception) -> bool:
    if isinstance(error, ProcessLost | dist.DistError):  # the second is nccl's
        return True
    return "by peer" in str(error)  # gloo's, a RuntimeError


def _tell_torchrun(cause: str) -> None:
    """Write the file from which torchrun reads why a process failed, in the form of its ErrorHandler."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is not None:
        extra = {"py_callstack": cause, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):  # it is printed too
            Path(file).write_text(json.dumps({"message": {"message": cause, "extraInfo": extra}}))


def _count(what: str) -> int:
    """Return how many processes of the run, with this one, have counted the same; 0 if unknown."""
    with_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not (dist.is_initialized() or with_agent):
        return 0
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        # A connection of its own: another thread may be waiting with the group's.
        store = dist.TCPStore(address, port, is_master=False, timeout=_STORE_TIMEOUT)
        return store.add(f"pwlu/{attempt}/{what}", 1)
    except dist.DistError:  # the process that kept the store has left
        return 0
