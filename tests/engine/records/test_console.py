import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from engine.evaluation import Record
from engine.records.console import Console, Stopwatch, say, warn


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stopwatch_leaves_pauses_out() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.start()
    for _ in range(2):
        clock.now += 0.5
        stopwatch.lap()

    def data():
        clock.now += 0.25
        yield "a batch"

    clock.now += 100  # an evaluation
    stopwatch.start()
    for batch in stopwatch.waiting_for(data()):
        assert batch == "a batch"
        clock.now += 0.75
        stopwatch.lap()
    assert stopwatch.read() == (3 / 2.0, 0.25 / 2.0)
    clock.now += 0.25
    stopwatch.lap()
    assert stopwatch.read() == (4.0, 0.0)  # since the last reading


def test_console_lines(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    console = Console(steps_per_epoch=22, total_steps=220, resume_step=100, clock=clock)
    clock.now += 60.0
    values = {"loss": 1.23456, "lr": 0.05, "images_per_second": 1234.5, "data_wait": 0.043, "phase": 1}
    console(Record("train", 110, 5.0, values))
    console(Record("realign", 110, 5.0))
    console(Record("eval", 110, 5.0, {"top1": 71.3456, "loss": 1.5, "images": 360}))
    assert capsys.readouterr().out.splitlines() == [
        "epoch  5.00/10  step 110/220  phase I   loss  1.2346  lr 5.000e-02    1234 images/s  data  4 %  "
        "ETA 0:11:00",
        "epoch  5.00/10  step 110/220  realignment: PWLUs now cover their input, mean +- 3 std; "
        "phase II begins",
        "epoch  5.00/10  step 110/220  validation: top1 71.35 %  loss 1.5000  images 360",
    ]


def test_a_long_run_without_pwlu_has_days_left_and_no_phase(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    console = Console(steps_per_epoch=100_000, total_steps=100_000, resume_step=0, clock=clock)
    clock.now += 1.0
    console(Record("train", 1, 0.0, {"loss": 1.0, "lr": 0.1, "images_per_second": 5.25, "data_wait": 0.0}))
    line = capsys.readouterr().out
    assert "phase" not in line and "   5.2 images/s" in line and line.endswith("ETA 1d 03:46:39\n")


class Doubtful(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        warn("an image is broken")
        return torch.tensor(index)


@pytest.mark.parametrize(
    ("rank", "start"), [(None, "WARNING"), ("0", "WARNING"), ("3", "WARNING from process 3")]
)
def test_a_warning_names_the_process_it_comes_from(
    rank: str | None, start: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rank 0 speaks for the run; a data loading process speaks for the one that started it."""
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    say("hello")
    warn("the disk is nearly full")
    for context in ("fork", "spawn"):
        list(DataLoader(Doubtful(), num_workers=1, multiprocessing_context=context))
    lines = ["hello", f"{start}: the disk is nearly full", *[f"{start}: an image is broken"] * 2]
    assert capfd.readouterr().out.splitlines() == lines
