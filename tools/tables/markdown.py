"""A table of the paper in Markdown: its numbers, ours, and what ours rest on."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config.load import config_hash
from tools.collect import Measurement
from tools.paper.grid import Grid, option
from tools.paper.numbers import SHARED, Place, Table, read_paper
from tools.sweep.plan import DIVERGED
from tools.tables.compare import SHOWN, mean_and_spread

MISSING = "—"


def read_measurements(path: Path, grid: Grid, scale: str) -> list[Measurement]:
    """Return the lines of a file that tools.collect wrote.

    Raises:
        ValueError: a line of another table or scale, of an unknown cell, or of a run whose settings are no
            longer those of the grid.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    known = {place for cell in grid.cells for place in cell.places}
    measurements = []
    for number, line in enumerate(lines, start=2):
        try:
            table: Table = int(line["table"]) if line["table"].isdigit() else line["table"]
            value = None if line["value"] == DIVERGED else float(line["value"])
            numbers = {"table": table, "seed": int(line["seed"]), "value": value}
            values: dict[str, Any] = line | numbers
            found = Measurement(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a line of tools.collect: {error}") from error
        if found.scale != scale or found.place not in known:
            raise ValueError(f"{path}, line {number}: {found.run} is no run of this table at scale {scale}")
        measurements.append(found)
    _require_current(path, grid, scale, measurements)
    return measurements


def table_lines(grid: Grid, scale: str, measurements: Sequence[Measurement]) -> list[str]:
    """Return a table in Markdown, with what it rests on."""
    paper, dataset = read_paper(), grid.scales[scale].dataset
    by_place: dict[Place, list[Measurement]] = {}
    for measurement in measurements:
        by_place.setdefault(measurement.place, []).append(measurement)
    lines = [
        f"### Table {grid.table}, scale {scale}: {dataset}",
        "",
        *_as_in_the_paper(grid, by_place),
        "",
        "| row | column | metric | paper | ours | n | difference | runs |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    places = [place for cell in grid.cells for place in cell.places]
    for place in places:
        cells = [*_numbers(paper[place].value, by_place.get(place, [])), _runs(by_place.get(place, []))]
        lines.append(f"| {place.row} | {place.column} | {SHOWN[place.metric]} | {' | '.join(cells)} |")
    filled = len({one.place for one in measurements if one.value is not None})
    return [*lines, "", f"{filled} of {len(places)} numbers.", *origins(measurements), ""]


def _as_in_the_paper(grid: Grid, by_place: Mapping[Place, Sequence[Measurement]]) -> list[str]:
    """Return our numbers in the rows and columns of the paper's table."""
    ours = {
        (place.row, place.column, place.metric): _numbers(0.0, by_place.get(place, []))[1]
        for cell in grid.cells
        for place in cell.places
    }
    rows = dict.fromkeys(cell.row for cell in grid.cells)
    columns = dict.fromkeys((place.column, place.metric) for cell in grid.cells for place in cell.places)
    columns.pop((SHARED, "top1"), None)
    titles = [f"{column}, {SHOWN[metric]}" for column, metric in columns]
    lines = [f"| ours | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(titles)}"]
    for row in rows:
        found = [ours.get((row, *column)) or ours[(row, SHARED, column[1])] for column in columns]
        lines.append(f"| {row} | {' | '.join(found)} |")
    return lines


def _numbers(paper: float, found: Sequence[Measurement]) -> list[str]:
    """Return the paper's number, ours, n and the difference."""
    if not found:
        return [f"{paper:.2f}", MISSING, "0", MISSING]
    values = [one.value for one in found if one.value is not None]
    lost = f"{len(found) - len(values)} diverged" if len(values) < len(found) else ""
    if not values:
        return [f"{paper:.2f}", lost, "0", MISSING]
    difference = sum(values) / len(values) - paper
    ours = mean_and_spread(values) + (f" ({lost})" if lost else "")
    return [f"{paper:.2f}", ours, str(len(values)), f"{difference:+.2f}"]


def _runs(found: Sequence[Measurement]) -> str:
    """Return where the numbers of a cell came from."""
    runs = [f"{one.run} `{one.config_hash[:8]}` {one.commit} {one.date}" for one in found]
    return "<br>".join(runs) or MISSING


def origins(measurements: Sequence[Measurement]) -> list[str]:
    """Return the machines and versions, each with the number of its runs."""
    runs = {measurement.run: (measurement.hardware, measurement.versions) for measurement in measurements}
    lines = []
    for hardware, versions in sorted(set(runs.values())):
        count = list(runs.values()).count((hardware, versions))
        lines.append(f"{count} {'run' if count == 1 else 'runs'} on {hardware}: {versions}.")
    return lines


def _require_current(path: Path, grid: Grid, scale: str, measurements: Sequence[Measurement]) -> None:
    """Raise ValueError for a run whose configuration has another hash than the grid's of the same name."""
    seeds = sorted({measurement.seed for measurement in measurements})
    runs = {run.name: run for run in grid.runs(scale, Path(), seeds)}
    for name, hashed in {(measurement.run, measurement.config_hash) for measurement in measurements}:
        if name not in runs or config_hash(runs[name].config) != hashed:
            raise ValueError(
                f"{path}: {name} was not run with the configuration that the repository declares now; run "
                f"the sweep again in a new folder, then python -m tools.collect {option(grid.table)} "
                f"--scale {scale}"
            )
