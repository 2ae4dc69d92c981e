import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tools.sweep.local import Job, LocalLauncher, Outcome

# What a run does: `wait` for SIGTERM, after it asked the launcher to stop; `stubborn`: ignore it and ask
# again; `fail`; else finish.
STUB = """
import os, signal, sys
folder, what = sys.argv[1:]
print("started on", os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"])
def again(number, frame):
    os.kill(os.getppid(), signal.SIGTERM)
if what == "fail":
    sys.exit("no luck")
if what == "stubborn":
    signal.signal(signal.SIGTERM, again)
    os.kill(os.getppid(), signal.SIGINT)
    while True:
        signal.pause()
if what == "wait":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getppid(), signal.SIGINT)
    signal.sigwait({signal.SIGTERM})
    sys.exit(75)
if what != "quit":
    open(os.path.join(folder, "FINISHED"), "w").close()
"""


def launch(
    tmp_path: Path,
    words: list[str],
    at_once: int = 2,
    gpus: tuple[str, ...] = (),
    progress_seconds: float = 60.0,
    after: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Outcome, list[str]]:
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    jobs = []
    for number, word in enumerate(words):
        folder = tmp_path / f"run{number}"
        first = tmp_path / f"run{after[number]}" if number in after else None
        jobs.append(Job(folder.name, [sys.executable, "-S", str(stub), str(folder), word], folder, first))
    lines: list[str] = []
    launcher = LocalLauncher(at_once=at_once, gpus=gpus, threads=3, progress_seconds=progress_seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.sweep.local.say", lines.append)
        return launcher.run(jobs), lines


def test_a_failed_run_does_not_stop_the_others(tmp_path: Path) -> None:
    outcome, lines = launch(tmp_path, ["finish", "fail", "quit", "finish"])
    assert sorted(outcome.finished) == ["run0", "run3"]
    assert sorted(outcome.failed) == ["run1", "run2"]  # the third ended well, but without the mark
    assert outcome.stopped == outcome.waiting == []
    failures = [line for line in lines if "FAILED" in line]
    assert any("run1: FAILED with status 1: no luck; all of it: " in line for line in failures)
    assert any("of 4 ended] run3: finished" in line for line in lines)


def test_runs_get_a_gpu_each_and_their_threads_and_keep_their_log(tmp_path: Path) -> None:
    for _ in range(2):
        launch(tmp_path, ["finish"] * 2, gpus=("4", "GPU-7"))
    logs = sorted((tmp_path / f"run{number}" / "sweep.log").read_text() for number in range(2))
    assert logs == ["started on 4 3\n" * 2, "started on GPU-7 3\n" * 2]


def test_now_and_then_it_says_what_a_run_last_printed(tmp_path: Path) -> None:
    _, lines = launch(tmp_path, ["finish"], progress_seconds=0)
    assert any(line.startswith("    run0, 0.0 min: ") for line in lines)
    _, lines = launch(tmp_path, ["finish"])
    assert not any(line.startswith("    run0") for line in lines)


def test_no_more_run_at_once_than_may(tmp_path: Path) -> None:
    _, lines = launch(tmp_path, ["finish"] * 3, at_once=1)
    kinds = ["started" in line for line in lines]
    assert kinds == [True, False] * 3


def test_a_run_waits_for_the_one_that_it_starts_from(tmp_path: Path) -> None:
    words = ["finish", "fail", "finish", "finish", "finish"]
    outcome, lines = launch(tmp_path, words, at_once=3, after={2: 1, 3: 0, 4: 3})
    started = [line.split(":")[0] for line in lines if ": started" in line]
    assert started[-2:] == ["run3", "run4"] and sorted(outcome.finished) == ["run0", "run3", "run4"]
    assert sorted(outcome.failed) == ["run1", "run2"] and outcome.waiting == []
    assert f"run2: NOT STARTED: it starts from {tmp_path / 'run1'}, which is not finished" in lines
    assert not (tmp_path / "run2").exists()


def test_a_signal_is_handed_on_and_waited_for(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    outcome, lines = launch(tmp_path, ["wait", "finish"], at_once=1)
    assert (outcome.stopped, outcome.waiting, outcome.failed) == (["run0"], ["run1"], [])
    assert "asking to save and stop: run0" in lines
    assert not (tmp_path / "run1").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_kills(tmp_path: Path) -> None:
    outcome, lines = launch(tmp_path, ["stubborn", "finish"], at_once=1)
    assert (outcome.stopped, outcome.waiting) == (["run0"], ["run1"])
    assert "killing: run0" in lines
