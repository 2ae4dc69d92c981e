"""Records of sweep runs without training, in the folders where tools.sweep has them."""

import json
from typing import Any

from engine.runs.folder import RunFolder
from tools.paper.grid import Run

START = {
    "time_utc": "2026-02-03T04:05:06+00:00",
    "code": {"commit": "0123456789abcdef", "uncommitted_changes": False},
    "world_size": 2,
    "hardware": {"device": "cuda", "cpu": "a processor", "gpu": "a GPU"},
    "python": "3.11.0",
    "packages": {"torch": "2.14.1", "timm": "1.0", "pycocotools": None},
}


def write_run(
    run: Run,
    metrics: dict[str, float | None],
    *,
    finished: bool = True,
    diverged: bool = False,
    num_train: int | None = None,
    **changed: Any,
) -> None:
    """Write the records of a run whose experiment is the declared one but for `changed` (dots as __)."""
    run.folder.mkdir(parents=True)
    changes = {key.replace("__", "."): value for key, value in changed.items()}
    images = run.scale.train_images if num_train is None else num_train
    data = {"num_train": images, "num_val": 10, "num_classes": 10}
    start: dict[str, Any] = dict(START)
    if run.source is not None:  # as a trainer leaves it
        changes = {"init_from": "sha256:0123456789abcdef"} | changes
        start["init_from"] = {"path": str(run.source.checkpoint), "experiment_hash": run.source.hash}
    manifest = {"experiment": run.declared | changes, "data": data, "starts": [start]}
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    evaluations = [
        {"kind": "eval", "epoch": epoch, **values} for epoch, values in ((1.0, {}), (2.0, metrics))
    ]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, evaluations)) + "\n")
    if diverged:
        RunFolder(run.folder).mark_diverged(step=51, lr=0.01)
    elif finished:
        RunFolder(run.folder).mark_finished({})
