"""Numbers of runs with where they come from, as results/tables/<scale>_<table or study>.csv keeps them."""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine.files import write_text_atomically
from engine.records.record import read_records
from engine.runs.folder import RunFolder
from tools.paper.grid import OUTPUT, SMOKE, Grid
from tools.paper.numbers import Place
from tools.records import counted

RESULTS = Path("results")
MISSING = "—"
DIVERGED = "diverged"  # instead of a value
# What tables show of the metrics, as far as a run has them; all but the loss in percent.
SHOWN = {
    "top1": "top-1 (%)",
    "loss": "validation loss",
    "bbox_AP": "box AP",
    "bbox_AP50": "box AP50",
    "segm_AP": "mask AP",
    "segm_AP50": "mask AP50",
}


@dataclass(frozen=True)
class Measurement:
    """One number of one run: where it belongs, what it is, and where it came from."""

    table: str  # the key of its grid
    row: str
    column: str
    metric: str
    value: float | None  # in percent but for a loss, None if the training diverged
    seed: int
    scale: str
    commit: str  # of each start; `+changes` if files differed from it
    config_hash: str
    hardware: str
    versions: str
    date: str  # the day its last start began, in UTC
    run: str

    @property
    def place(self) -> Place:
        return Place(self.row, self.column, self.metric)


def results_of(scale: str, output: Path = OUTPUT) -> Path:
    """Return the folder for what is made of a scale's runs."""
    # Numbers of scale smoke mean nothing: they must not stand beside the paper's.
    return output / SMOKE if scale == SMOKE else RESULTS


def csv_path(results: Path, scale: str, grid: Grid) -> Path:
    """Return where the measurements of a grid at a scale are kept."""
    return results / "tables" / f"{scale}_{grid.stem}.csv"


def write_measurements(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write measurements as lines of CSV under a heading."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Measurement)], lineterminator="\n")
    writer.writeheader()
    for one in measurements:
        writer.writerow(asdict(one) | {"value": DIVERGED if one.value is None else one.value})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text.getvalue())


def read_measurements(results: Path, scale: str, grid: Grid) -> list[Measurement]:
    """Return the measurements of a grid at a scale, none where nothing was collected.

    Raises:
        ValueError: a line of another table or scale, of an unknown cell, or of a run whose settings are no
            longer those of the grid.
    """
    path = csv_path(results, scale, grid)
    measurements = read_lines(path)
    known = set(grid.places)
    for number, one in enumerate(measurements, start=2):
        if (one.table, one.scale) != (grid.key, scale) or one.place not in known:
            raise ValueError(f"{path}, line {number}: {one.run} is no run of this table at scale {scale}")
    for name in outdated(grid, scale, measurements):
        raise ValueError(
            f"{path}: {name} was not run with the configuration that the repository declares now; run "
            f"the sweep again in a new folder, then python -m tools.collect {grid.option} --scale {scale}"
        )
    return measurements


def read_lines(path: Path) -> list[Measurement]:
    """Return what a CSV holds, nothing if there is none. Raises ValueError for a line of something else."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    measurements = []
    for number, line in enumerate(lines, start=2):
        try:
            value = None if line["value"] == DIVERGED else float(line["value"])
            values: dict[str, Any] = {**line, "seed": int(line["seed"]), "value": value}
            measurements.append(Measurement(**values))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a line of tools.collect: {error}") from error
    return measurements


def outdated(grid: Grid, scale: str, measurements: Sequence[Measurement]) -> list[str]:
    """Return the names of runs whose configuration is not that of the grid's run of the same name."""
    seeds = sorted({measurement.seed for measurement in measurements})
    runs = {run.name: run for run in grid.runs(scale, Path(), seeds)}
    hashes = dict.fromkeys((one.run, one.config_hash) for one in measurements)
    return [name for name, hashed in hashes if name not in runs or runs[name].hash != hashed]


def read_run(folder: Path) -> dict[str, Any]:
    """Return what a finished run was and what came out. Raises ValueError if there is none in `folder`."""
    if not (folder / "FINISHED").exists():
        what = "give its command again" if RunFolder(folder).divergence() is None else "it diverged"
        raise ValueError(f"{folder} holds no finished run, as it has no file FINISHED: {what}")
    manifest = RunFolder(folder).read_manifest()
    records = [record for record in read_records(folder / "metrics.jsonl") if record["kind"] == "eval"]
    if manifest is None or not records:
        raise ValueError(f"{folder}: no manifest.json, or no evaluation in metrics.jsonl")
    last = records[-1]
    started = manifest["starts"][-1]
    return {
        "settings": manifest["experiment"],
        "data": manifest["data"],
        **{name: last[name] for name in SHOWN if name in last},
        "epochs": last["epoch"],
        "code": started["code"],
        "hardware": started["hardware"],
        "packages": started["packages"],
    }


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return `62.00 ± 2.00`, or the one value there is."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def seed_counts(counts: Sequence[int], diverged: int) -> str:
    """Return on how many seeds numbers rest: `n = 3 seeds`, `n = 1 to 3 seeds (2 diverged)`."""
    least, most = min(counts, default=0), max(counts, default=0)
    number = f"{least}" if least == most else f"{least} to {most}"
    return f"n = {number} {'seed' if most == 1 else 'seeds'}" + f" ({diverged} diverged)" * bool(diverged)


def origins(measurements: Sequence[Measurement]) -> list[str]:
    """Return the machines and versions, each with the number of its runs."""
    runs = {(one.run, one.seed): f"{one.hardware}: {one.versions}" for one in measurements}
    return [
        f"{counted(count, 'run')} on {origin}." for origin, count in sorted(Counter(runs.values()).items())
    ]
