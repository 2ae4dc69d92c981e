"""A killed launcher: every process that it started leaves its output pipe, whose end the tests wait for."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.processes import launcher
from engine.processes.launcher import LAUNCHER
from tests.training_runs import REPOSITORY

TORCHELASTIC = {"TORCHELASTIC_RUN_ID": "run", "TORCHELASTIC_USE_AGENT_STORE": "True"}

# Starts a process as torchrun does, which kills it at once, then waits for its end in vain.
TORCHRUN = """
import mmap, os, subprocess, sys
with open(sys.argv[1], "rb") as library:  # what torchrun has loaded
    loaded = mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ)
store = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
environment = os.environ | {"TORCHELASTIC_RUN_ID": "run"} | store
subprocess.run(sys.argv[2:], start_new_session=True, env=environment)
"""
WORKER = """
import os, signal, sys, time
from engine.processes.launcher import _ancestors, end_with_launcher
early, launcher = sys.argv[1] == "early", int(sys.argv[2])
if not early:
    end_with_launcher(1)
os.kill(launcher, signal.SIGKILL)
while early and launcher in _ancestors():
    time.sleep(0.01)
if early:
    end_with_launcher(1)
signal.pause()
"""


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="ancestors are listed in /proc on Linux only"
)
@pytest.mark.parametrize(
    "started_by", ['exec "$0" "$@" $PPID', '"$0" "$@" $PPID; true'], ids=["it", "a script"]
)
@pytest.mark.parametrize("when", ["late", "early"])
def test_a_process_ends_with_its_torchrun(started_by: str, when: str, tmp_path: Path) -> None:
    """Also one below a script that stays, and one whose torchrun died before it could look for it."""
    library = tmp_path / "libtorch.so"
    library.write_bytes(b"library")
    command = [sys.executable, "-c", TORCHRUN, str(library)]
    command += ["sh", "-c", started_by, sys.executable, "-c", WORKER, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.startswith("error: the torchrun") and "same command" in done.stderr


RUN = """
import os, signal
from engine.processes.launcher import end_with_launcher
end_with_launcher(1)
os.kill(os.getppid(), signal.SIGKILL)
signal.pause()
"""
SWEEP = """
import sys
from pathlib import Path
from tools.sweep.local import Job, LocalLauncher
job = Job("run", [sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]))
LocalLauncher(at_once=1, gpus=[], threads=1).run([job])
"""


def test_a_run_ends_with_its_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SWEEP, RUN, str(tmp_path)]
    assert subprocess.run(command, timeout=30, cwd=REPOSITORY).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while "the same command goes on" not in (tmp_path / "sweep.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "2"}], ids=["shell", "srun"])
def test_only_a_launcher_is_followed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell started goes on after it, as under nohup."""
    for name in ("TORCHELASTIC_RUN_ID", LAUNCHER):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher._launcher() is None


def test_a_torchrun_outside_the_container_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_ancestors", lambda: iter([1]))
    monkeypatch.setattr(launcher, "_is_torchrun", lambda process: False)
    with socket.create_server(("localhost", 0)) as store:
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.getsockname()[1])}
        for name, value in {**TORCHELASTIC, **address}.items():
            monkeypatch.setenv(name, value)
        assert launcher._launcher() is None
    assert launcher._launcher() == 0
