"""A run that dies at any moment and is started again must end as if nothing had happened, to the bit."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.config.experiment import Experiment
from engine.processes.distributed import World
from engine.processes.preemption import StopRequest
from engine.records.functions_log import read_functions
from engine.runs.folder import RunFolder
from engine.runs.run import Run
from engine.training.loop import Plan, Task, TrainingDiverged
from engine.training.optimizer import OptimizerOptions
from engine.training.origin import Origin
from engine.training.result import StepResult
from engine.training.step import TrainStep
from pwlu import PWLU, ReplacementReport
from tests.engine import tiny
from tests.training_runs import assert_same_bits, records, weights

PLAN = Plan(
    total_steps=3 * tiny.STEPS_PER_EPOCH,
    steps_per_epoch=tiny.STEPS_PER_EPOCH,
    images_per_step=tiny.GLOBAL_BATCH,
    log_every_steps=2,
    checkpoint_every_steps=2,
    eval_every_steps=2 * tiny.STEPS_PER_EPOCH,
    plot_every_steps=4,  # at the realignment too
)


def train(
    folder: Path,
    on_call: Callable[[str], Any] = lambda name: None,
    task: Task | None = None,
    plan: Plan = PLAN,
) -> bool:
    """Train the tiny network in the folder; every call with the same arguments is the same command."""
    with StopRequest() as stop:
        run = Run(RunFolder(folder), Experiment({}, {"seed": 1}, "0"), World(), stop)
        return run.train(
            task or tiny.Task(World(), on_call=on_call),
            tiny.state(tiny.network(), fp16=True),
            plan,
            lambda step: 0.1 * (step + 1) / PLAN.total_steps,
            options=OptimizerOptions(peak_lr=0.1, weight_decay=0.0, clip_grad_norm=1.0),
            seed=1,
            origin=Origin(ReplacementReport((), 0, 0)),
        )


def assert_same_run(folder: Path, whole: Path) -> None:
    """Fail unless both folders have the same weights, to the bit, records and learned functions."""
    assert_same_bits(weights(folder), weights(whole))
    assert records(folder) == records(whole)
    assert (folder / "curves.jsonl").read_text() == (whole / "curves.jsonl").read_text()


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Any:
    """Drawing takes longer than all the rest together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.runs.reporting.draw_curves", lambda model, title: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, no_pictures: None) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder)
    return folder


def test_the_records_tell_the_run(whole: Path) -> None:
    told = [(entry["kind"], entry["step"], entry.get("phase")) for entry in records(whole)]
    assert told == [
        ("train", 2, 1),
        ("train", 4, 1),
        ("realign", 4, None),
        ("train", 6, 2),
        ("eval", 6, None),
        ("train", 8, 2),
        ("train", 9, 2),
        ("eval", 9, None),
    ]
    assert records(whole)[0]["epoch"] == round(2 / 3, 4)
    assert {"top1", "loss", "ema_top1", "ema_loss"} <= records(whole)[-1].keys()
    assert (whole / "FINISHED").exists() and not (whole / "REQUEUE").exists()


def test_the_functions_are_logged_whenever_they_are_drawn(whole: Path) -> None:
    """At the beginning, right after the realignment (once, though step 4 is drawn anyway), and at the end."""
    logged = read_functions(whole / "curves.jsonl")
    assert [(entry.step, entry.epoch) for entry in logged] == [(0, 0), (4, 1.3333), (8, 2.6667), (9, 3)]
    before, after = (entry.layers["2"].functions for entry in logged[:2])
    assert [list(before), logged[0].layers["2"].total] == [[0, 1, 2, 3], 4]
    assert {function.left for function in before.values()} == {PWLU(1).left.item()}
    assert before[0].left != after[0].left != after[1].left
    end = torch.load(whole / "checkpoints" / "last.pt")["model"]
    assert logged[-1].layers["2"].functions[3].points == pytest.approx(end["2.points"][3].tolist(), rel=1e-6)


class Died(BaseException):
    """Stands for the end of the process: nothing in the program handles this."""


def at_call(number: int, action: Callable[[], None]) -> Callable[[str], None]:
    """Return a function whose n-th call (from 1), and every later one, calls `action`."""
    calls = 0

    def on_call(name: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            action()

    return on_call


def die() -> None:
    raise Died


def train_and_die(folder: Path, call: int) -> bool:
    """Train, and die at the n-th call of the task, or of what writes or renames a file."""
    on_call = at_call(call, die)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace"):
            operation = getattr(os, name)
            patch.setattr(os, name, lambda *words, operation=operation: (on_call(), operation(*words))[1])
        try:
            return train(folder, on_call)
        except Died:
            return False


@pytest.mark.parametrize("stride", [1, 7, 29])
def test_death_at_any_moment(stride: int, whole: Path, tmp_path: Path) -> None:
    """Every start lives some calls longer than the one before, so deaths fall on every kind of call."""
    starts = 0
    while not train_and_die(tmp_path, call=11 + starts * stride):
        starts += 1
        assert starts < 200
    assert starts > 0
    assert_same_run(tmp_path, whole)
    assert_same_bits(weights(tmp_path, "best.pt"), weights(whole, "best.pt"))
    assert (tmp_path / "FINISHED").read_text() == (whole / "FINISHED").read_text()


def signal_at(call: int) -> Callable[[str], None]:
    return at_call(call, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("call", range(1, 32, 3))
def test_stop_by_a_signal_at_any_moment(call: int, whole: Path, tmp_path: Path) -> None:
    """The signal comes during a forward, the loading of data or an evaluation; the run saves and says so."""
    if not train(tmp_path, signal_at(call)):
        assert '"signal": "SIGTERM"' in (tmp_path / "REQUEUE").read_text()
        assert not (tmp_path / "FINISHED").exists()
        assert train(tmp_path)
    assert not (tmp_path / "REQUEUE").exists()
    assert_same_run(tmp_path, whole)


class SpoiltTask(tiny.Task):
    """In step 1 a PWLU gets negative infinities, of which ReLU makes zeros: the loss is finite."""

    def losses(self, model: nn.Module, micro_batch: tiny.Batch) -> dict[str, torch.Tensor]:
        spoils = torch.equal(micro_batch[0][0], tiny.global_batch(1)[0][0])
        site = next(module for module in model.modules() if isinstance(module, PWLU))
        hook = site.register_forward_pre_hook(lambda module, args: args[0] - torch.inf if spoils else None)
        try:
            return super().losses(model, micro_batch)
        finally:
            hook.remove()


def test_a_step_of_phase_1_that_is_not_finite_costs_no_run(tmp_path: Path) -> None:
    """The checkpoints from then on are good, and a run that dies goes on from them."""
    whole, died = tmp_path / "whole", tmp_path / "died"
    with pytest.warns(UserWarning, match="PWLU '2'.*not finite"):
        assert train(whole, task=SpoiltTask(World()))
    with pytest.warns(UserWarning, match="PWLU '2'.*not finite"), pytest.raises(Died):
        train(died, task=SpoiltTask(World(), on_call=at_call(9, die)))
    content = torch.load(died / "checkpoints" / "last.pt")
    assert content["phases"]["step_count"] == 2
    assert all(tensor.isfinite().all() for tensor in content["model"].values())
    assert train(died, task=SpoiltTask(World()))
    assert_same_run(died, whole)


def test_stopping_costs_no_step(tmp_path: Path) -> None:
    """The step in which the signal comes and the one begun by then are saved, though no checkpoint is due."""
    plan = replace(PLAN, log_every_steps=9, checkpoint_every_steps=4)
    assert not train(tmp_path, signal_at(14), plan=plan)  # a step is three calls: batches and two losses
    assert torch.load(tmp_path / "checkpoints" / "last.pt")["step"] == 6
    assert torch.load(tmp_path / "checkpoints" / "previous.pt")["step"] == 4
    assert '"step": 6' in (tmp_path / "REQUEUE").read_text()


def spoil_step(task: tiny.Task, step: int) -> tiny.Task:
    """Let the loss of a step (from 0) be NaN."""
    losses, bad = task.losses, tiny.global_batch(step)[0][0]
    task.losses = lambda model, batch: {
        name: loss * (torch.nan if torch.equal(batch[0][0], bad) else 1.0)
        for name, loss in losses(model, batch).items()
    }
    return task


@pytest.mark.parametrize("step", range(1, 9))
def test_divergence_names_the_step_and_leaves_the_last_good_checkpoint(step: int, tmp_path: Path) -> None:
    """Its loss is read when the next step is under way; what is saved until then is due before it."""
    task = spoil_step(tiny.Task(World()), step)
    plan = replace(PLAN, log_every_steps=100, checkpoint_every_steps=4)
    with pytest.raises(
        TrainingDiverged, match=f"nan at step {step} with learning rate {0.1 * (step + 1) / 9:.6g}"
    ):
        train(tmp_path, task=task, plan=plan)
    saved = max(filter(lambda s: s <= step, (0, 4, 6, 8)))
    last = tmp_path / "checkpoints" / "last.pt"
    assert (torch.load(last)["step"] if last.exists() else 0) == saved
    if saved:
        assert all(tensor.isfinite().all() for tensor in torch.load(last)["model"].values())
    assert train(tmp_path)  # without the bad step


@pytest.mark.parametrize(
    ("due", "expected"),
    [  # an epoch ends with step 2, phase I with step 3
        (
            {},
            "take 0, take 1, read 0, take 2, read 1, read 2, take 3, read 3, take 4, take 5, read 4, read 5",
        ),
        (
            {"log_every_steps": 2},
            "take 0, take 1, read 0, read 1, take 2, read 2, take 3, read 3, take 4, take 5, read 4, read 5",
        ),
        (
            {"checkpoint_every_steps": 5},
            "take 0, take 1, read 0, take 2, read 1, read 2, take 3, read 3, take 4, read 4, take 5, read 5",
        ),
    ],
)
def test_losses_are_read_when_the_next_step_is_under_way(
    due: dict[str, int], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or at once, where something is due: so that a device always has something to work on."""
    events: list[str] = []
    taken: list[StepResult] = []
    call, is_finite = TrainStep.__call__, StepResult.is_finite.fget

    def take(self: TrainStep, *arguments: Any) -> StepResult:
        events.append(f"take {len(taken)}")
        taken.append(call(self, *arguments))
        return taken[-1]

    def read(result: StepResult) -> bool:
        events.append(f"read {taken.index(result)}")
        return is_finite(result)

    monkeypatch.setattr(TrainStep, "__call__", take)
    monkeypatch.setattr(StepResult, "is_finite", property(read))
    plan = replace(PLAN, total_steps=6, log_every_steps=100, checkpoint_every_steps=100, plot_every_steps=100)
    assert train(tmp_path, plan=replace(plan, **due))
    assert ", ".join(events) == expected


def test_divergence_before_any_checkpoint_leaves_a_mark_until_the_next_start(tmp_path: Path) -> None:
    task = tiny.Task(World())
    task.losses = lambda model, batch: {"sum": model(batch[0]).sum() * float("inf")}
    with pytest.raises(TrainingDiverged, match="at step 0 .* none was saved"):
        train(tmp_path, task=task)
    assert RunFolder(tmp_path).divergence() == {"step": 0, "lr": pytest.approx(0.1 / 9)}
    assert not (tmp_path / "FINISHED").exists() and not (tmp_path / "REQUEUE").exists()
    assert train(tmp_path)
    assert RunFolder(tmp_path).divergence() is None and (tmp_path / "FINISHED").exists()
