import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.evaluation import Record
from engine.records.record import JsonLines, TensorBoard, read_records


def write(path: Path, resume_step: int, records: list[Record]) -> None:
    lines = JsonLines(path, resume_step)
    for record in records:
        lines(record)
    lines.close()


def test_a_record_is_one_line_of_json_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    values = {"loss": 1.25, "phase": 1, "top1": float("nan"), "top5": float("inf")}
    write(tmp_path / "m.jsonl", 0, [Record("train", 3, 0.5, values)])
    assert (tmp_path / "m.jsonl").read_text() == (
        '{"kind": "train", "step": 3, "epoch": 0.5, "loss": 1.25, "phase": 1, "top1": null, "top5": null}\n'
    )


def test_resuming_drops_what_happens_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    kinds = [("train", 1), ("train", 2), ("eval", 2), ("train", 3), ("train", 4), ("eval", 4), ("train", 5)]
    write(path, 0, [Record(kind, step, 0.0) for kind, step in kinds])
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')  # killed in the middle of a line
    assert len(read_records(path)) == 7
    write(path, 4, [Record("eval", 4, 0.0)])
    assert [(entry["kind"], entry["step"]) for entry in read_records(path)] == kinds[:5] + [("eval", 4)]
    write(path, 0, [])  # a new beginning
    assert path.read_text() == ""


def test_tensorboard_forgets_steps_after_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for resume_step, steps in ((0, range(1, 6)), (3, range(4, 7))):
        # Files are read in the order of the seconds in their names: a resumed run begins in a later one.
        monkeypatch.setattr(time, "time", lambda second=resume_step: float(second))
        board = TensorBoard(tmp_path, resume_step)
        for step in steps:
            board(Record("train", step, 0.0, {"loss": float(resume_step)}))
        board.close()
    values = [
        (event.step, event.value) for event in EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    ]
    assert values == [(1, 0), (2, 0), (3, 0), (4, 3), (5, 3), (6, 3)]
