import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from engine.processes.preemption import STOP_SIGNALS, StopRequest, obey_parent_only, stop_signals_blocked


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_remembered_and_interrupts_nothing(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested and stop.signal_name == number.name
    assert signal.getsignal(number) == before


def test_blocked_signals_come_after_the_block() -> None:
    with StopRequest() as stop:
        with stop_signals_blocked():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert not stop.requested
        assert stop.requested


class Numbers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


def test_loading_processes_outlive_signals_to_the_group_and_obey_their_parent() -> None:
    loader = DataLoader(Numbers(), batch_size=2, num_workers=2, worker_init_fn=obey_parent_only)
    with StopRequest():
        with stop_signals_blocked():
            batches = iter(loader)
        workers = batches._workers
        received = next(batches).tolist()
        for number in STOP_SIGNALS:  # from a process that is not their parent, as torchrun is not
            subprocess.run(["kill", f"-{number.value}", *(str(worker.pid) for worker in workers)], check=True)
        for batch in batches:
            received += batch.tolist()
        assert received == list(range(40))


ORPHANING = """
import os, sys
from torch.utils.data import DataLoader
from tests.engine.processes.test_preemption import Numbers
from engine.processes.preemption import obey_parent_only

how, started = sys.argv[1:]
loader = DataLoader(
    Numbers(), batch_size=2, num_workers=1, worker_init_fn=obey_parent_only, persistent_workers=True,
    multiprocessing_context=started,
)
batches = iter(loader)
next(batches)
if how == "die":
    os._exit(3)
raise SystemExit(4)  # a program that fails while the loader is in use
"""


@pytest.mark.parametrize(
    ("how", "started", "status"), [("die", "fork", 3), ("fail", "fork", 4), ("die", "forkserver", 3)]
)
def test_loading_processes_leave_with_their_training_process(how: str, started: str, status: int) -> None:
    """The output pipe is closed when the last process that holds it has gone: `run` waits for that."""
    command = [sys.executable, "-c", ORPHANING, how, started]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == status
