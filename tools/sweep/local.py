"""Runs the commands of a sweep on this machine, as many at once as there are GPUs or cores.

A failed run does not stop the others. A signal (Ctrl-C, SIGTERM, SIGUSR1) is handed on to the runs as
SIGTERM, on which the trainers save; no new run is started. A second signal kills them.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from engine.processes.launcher import LAUNCHER
from engine.records.console import say
from engine.runs.folder import RunFolder

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A command and the run folder it works in; `after`: the folder of a run that must be finished before."""

    name: str
    command: Sequence[str]
    folder: Path
    after: Path | None = None

    @property
    def is_ready(self) -> bool:
        return self.after is None or RunFolder(self.after).is_finished()

    @property
    def log(self) -> Path:
        return self.folder / "sweep.log"


@dataclass
class _Running:
    job: Job
    slot: int
    process: subprocess.Popen[bytes]
    started: float


@dataclass
class Outcome:
    """Names of the runs by how they ended; `waiting` were never started."""

    finished: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


class LocalLauncher:
    """Runs `at_once` jobs side by side, each on `threads` OpenMP threads.

    Args:
        gpus: ids as CUDA_VISIBLE_DEVICES takes them, handed out in turn; empty: the runs see what is there.
        progress_seconds: how often it says what each run last printed.
    """

    def __init__(
        self, *, at_once: int, gpus: Sequence[str], threads: int, progress_seconds: float = 60.0
    ) -> None:
        self._at_once, self._gpus, self._threads = at_once, gpus, threads
        self._progress_seconds, self._next_progress = progress_seconds, time.monotonic() + progress_seconds
        self._signals = 0
        self._running: list[_Running] = []

    def run(self, jobs: Sequence[Job]) -> Outcome:

        def remember(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        previous = {number: signal.signal(number, remember) for number in _SIGNALS}
        try:
            return self._run(list(jobs))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run(self, waiting: list[Job]) -> Outcome:
        outcome, total, handed_on = Outcome(), len(waiting), 0
        while self._running or (waiting and not self._signals):
            while not self._signals and len(self._running) < self._at_once:
                ready = next((job for job in waiting if job.is_ready), None)
                if ready is None:
                    break
                waiting.remove(ready)
                self._start(ready)
            if not self._running and not self._signals:
                self._give_up(waiting, outcome)
            if self._signals > handed_on:
                handed_on = self._signals
                self._hand_on(kill=handed_on > 1)
            self._tell_progress()
            for ended in [one for one in self._running if one.process.poll() is not None]:
                self._running.remove(ended)
                how = self._conclude(ended, outcome)
                number = total - len(waiting) - len(self._running)
                minutes = (time.monotonic() - ended.started) / 60
                say(f"[{number} of {total} ended] {ended.job.name}: {how} ({minutes:.1f} min)")
            if self._running:
                time.sleep(_POLL_SECONDS)
        outcome.waiting = [job.name for job in waiting]
        return outcome

    def _start(self, job: Job) -> None:
        slot = min(set(range(self._at_once)) - {running.slot for running in self._running})
        environment = os.environ | {"OMP_NUM_THREADS": str(self._threads), "PYTHONUNBUFFERED": "1"}
        environment[LAUNCHER] = str(os.getpid())  # a run ends with a sweep that is killed
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log:
            process = subprocess.Popen(
                list(job.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this program alone, which asks the run to save
            )
        self._running.append(_Running(job, slot, process, time.monotonic()))
        say(f"{job.name}: started, log {job.log}")

    def _give_up(self, waiting: list[Job], outcome: Outcome) -> None:
        """Note what cannot start any more, as what it starts from is not finished."""
        while waiting:
            job = waiting.pop(0)
            outcome.failed.append(job.name)
            say(f"{job.name}: NOT STARTED: it starts from {job.after}, which is not finished")

    def _conclude(self, ended: _Running, outcome: Outcome) -> str:
        """Note how a run ended and return it in words."""
        job, status = ended.job, ended.process.returncode
        if status == 0 and RunFolder(job.folder).is_finished():
            outcome.finished.append(job.name)
            return "finished"
        if status != 0 and RunFolder(job.folder).divergence() is not None:
            outcome.diverged.append(job.name)
            return f"diverged, which is its result: {_last_line(job.log)}; all of it: {job.log}"
        if self._signals:
            outcome.stopped.append(job.name)
            return "stopped; the same command goes on"
        outcome.failed.append(job.name)
        return f"FAILED with status {status}: {_last_line(job.log)}; all of it: {job.log}"

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + self._progress_seconds
        for running in self._running:
            minutes = (now - running.started) / 60
            say(f"    {running.job.name}, {minutes:.1f} min: {_last_line(running.job.log)}")

    def _hand_on(self, *, kill: bool) -> None:
        names = ", ".join(running.job.name for running in self._running) or "nothing"
        say(f"{'killing' if kill else 'asking to save and stop'}: {names}")
        for running in self._running:
            if kill:
                # With its data loading processes, which are in its group.
                os.killpg(running.process.pid, signal.SIGKILL)
            else:
                running.process.terminate()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "nothing printed")
