"""Runs one step of tools.gpu_check within its time, whatever it does."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tools.gpu_results import refusal
from tools.gpu_steps import NO_GPU, ROOT, Step

_COMMIT = """
import json
from pathlib import Path
from engine.manifest import describe_code
code = describe_code(Path.cwd())
print(json.dumps((code["commit"] or "") + ("+changes" if code["uncommitted_changes"] else "")))
"""
TAIL = 4000  # characters of what a step printed that the record keeps where it did not pass


@dataclass(frozen=True)
class Outcome:
    """How a step went: passed, failed, timed out or not run; and whether that fails the whole check."""

    status: str
    reason: str = ""
    bad: bool = False
    seconds: float = 0.0
    limit_s: float = 0.0
    command: tuple[str, ...] = ()
    output_tail: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def run_step(step: Step, folder: Path, left_s: float, dry_run: bool, commit: str) -> Outcome:
    """Run a step for at most its limit and the `left_s` seconds that there are."""
    template = step.dry if dry_run else step.command
    if template is None:
        return Outcome("not run", reason=NO_GPU)
    command = [part.replace("{folder}", str(folder)) for part in template]
    if step.program and not dry_run:
        program = find_program(step.program)
        if program is None:
            return Outcome("not run", reason=f"{step.program} was not found")
        command[0] = program
    limit_s = round(min(step.limit_s, left_s), 1)
    print(f"{step.name}: at most {limit_s:.0f} s", flush=True)
    more = step.dry_environment if dry_run else step.environment
    began = time.monotonic()
    code, output = run(command, folder / f"{step.name}.log", environment(folder, commit, more), limit_s)
    seconds = round(time.monotonic() - began, 1)
    shown = tuple(part.replace(str(folder), "FOLDER").replace(sys.executable, "python") for part in command)
    return judged(step, code, output, folder, dry_run, seconds=seconds, limit_s=limit_s, command=shown)


def search_path() -> str:
    """Return PATH, and after it the programs of the CUDA toolkit, which are not always on it."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.join(home, "bin")])


def find_program(name: str) -> str | None:
    """Return where a program is: on PATH or in the CUDA toolkit."""
    return shutil.which(name, path=search_path())


def environment(folder: Path, commit: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return that of a step: the pwlu that was built goes before any other."""
    known = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(folder / "site"), *([known] if known else [])])
    named = {"PWLU_COMMIT": commit} if commit else {}
    ours = {"PATH": search_path(), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **ours, **named, **more}


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM a SystemExit meanwhile, so that the step that runs is ended and its folder removed."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def commit_here(folder: Path) -> str | None:
    """Return the commit of this repository, with "+changes" if files differ from it; None if it is none.

    In a process of its own, which has the pwlu that was built: engine.manifest imports it.
    """
    command = [sys.executable, "-c", _COMMIT]
    code, output = run(command, folder / "commit.log", environment(folder, "", {}), 60)
    return str(json.loads(output.splitlines()[-1])) or None if code == 0 else None


def run(
    command: list[str], log: Path, environment: Mapping[str, str], limit_s: float
) -> tuple[int | None, str]:
    """Return the exit code, None if it was ended after `limit_s`, and what it printed."""
    with open(log, "wb") as file:
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        except OSError as error:
            return 127, str(error)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also where the check itself is ended: a session of its own gets no Ctrl-C
            _end_group(process.pid)  # and what it has left running would disturb the next measurement
            process.wait()
    return code, log.read_text(errors="replace")


def _end_group(leader: int) -> None:
    """End the processes of a session that we started; there may be none left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def judged(step: Step, code: int | None, output: str, folder: Path, dry_run: bool, **facts: Any) -> Outcome:
    """Return the outcome of a step that ran."""
    refused = refusal(output) if step.program and not dry_run else ""
    if refused:
        return Outcome("not run", reason=f"{step.program} cannot work here: {refused}", **facts)
    try:
        result, problem = step.read(folder, output, dry_run)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        result, problem = {}, f"what it left cannot be read: {error!r}"
    tail = output[-TAIL:].replace(str(folder), "FOLDER")
    if code is None:
        return Outcome(
            "timed out",
            reason=f"ended after {facts['limit_s']} s",
            bad=True,
            output_tail=tail,
            result=result,
            **facts,
        )
    if code != 0 or problem:
        reason = problem if code == 0 else f"exit code {code}" + (f"; {problem}" if problem else "")
        return Outcome("failed", reason=reason, bad=True, output_tail=tail, result=result, **facts)
    return Outcome("passed", reason=step.dry_note if dry_run else "", result=result, **facts)
