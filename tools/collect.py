"""Take the numbers of runs that ended into results/tables/<scale>_<table>.csv, each with where it came from.

    python -m tools.collect --table 5 --scale full
    python -m tools.collect --study starts
    python -m tools.collect                        # all tables, studies and scales that have runs

Every seed that has a run counts. A value is that of the evaluation after the last step, or `diverged` if the
loss became NaN or infinite. A run whose settings or images are not those that configs/sweeps declares is
refused. What the CSV has of runs that have not ended in the folder of sweeps stays, as long as configs/sweeps
declares the same. Numbers of scale smoke mean nothing: they stay beside their runs, in
runs/sweeps/smoke/tables.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.processes.program import errors_told_by, to_path
from engine.runs.folder import RunFolder
from engine.runs.manifest import short_commit
from tools.paper.grid import (
    FOLDER,
    OUTPUT,
    SCALES,
    SMOKE,
    Grid,
    Run,
    add_grid_options,
    all_grids,
    chosen_grid,
)
from tools.records import counted, tool_parser
from tools.sweep.plan import DIVERGED, FINISHED, state_of
from tools.tables.measurements import (
    Measurement,
    csv_path,
    outdated,
    read_lines,
    read_run,
    results_of,
    write_measurements,
)


def collect(grid: Grid, scale: str, output: Path) -> tuple[list[Measurement], list[Run]]:
    """Return the measurements of all runs that ended, and the runs that are missing.

    Raises:
        ValueError: a run that is not what the grid declares, or without one of its metrics.
    """
    measurements: list[Measurement] = []
    missing = []
    for run in grid.runs(scale, output, seeds=_seeds(grid, scale, output)):
        state = state_of(run)
        if state in (FINISHED, DIVERGED):
            measurements += _measurements_of(run, grid.key, diverged=state == DIVERGED)
        elif run.seed in run.scale.seeds or run.folder.exists():
            missing.append(run)
    return measurements, missing


def _measurements_of(run: Run, table: str, *, diverged: bool) -> list[Measurement]:
    manifest = RunFolder(run.folder).read_manifest()
    assert manifest is not None, "it says how far the run is"
    num_train = manifest["data"]["num_train"]
    if num_train != run.scale.train_images:
        raise ValueError(
            f"{run.folder} was trained on {num_train} images, but scale {run.scale.name} is "
            f"{run.scale.dataset} with {run.scale.train_images}; give the right data.root in a new folder"
        )
    found = {} if diverged else read_run(run.folder)
    for metric in run.cell.metrics:
        if not diverged and found.get(metric) is None:
            raise ValueError(f"{run.folder}: the last evaluation has no value for {metric}")
    return [
        Measurement(
            table=table,
            **asdict(place),
            value=found.get(place.metric),
            seed=run.seed,
            scale=run.scale.name,
            config_hash=run.hash,
            run=run.name,
            **_origin(manifest["starts"]),
        )
        for place in run.cell.places
    ]


def _seeds(grid: Grid, scale: str, output: Path) -> list[int]:
    """Return the scale's seeds and all others that a cell has a folder of."""
    folders = [path for cell in grid.cells for path in (output / scale).glob(f"{cell.runs_in}_seed*")]
    found = {path.name.rpartition("_seed")[2] for path in folders}
    return sorted({int(seed) for seed in found if seed.isdigit()}.union(grid.scales[scale].seeds))


def _origin(starts: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return where a run came from, in words."""
    last = starts[-1]
    hardware, packages = last["hardware"], last["packages"]
    versions = {"python": last["python"], **packages}
    return {
        "commit": " ".join(dict.fromkeys(short_commit(start["code"]) for start in starts)),
        "hardware": f"{last['world_size']} x {hardware.get('gpu', hardware['cpu'])}",
        "versions": "; ".join(f"{name} {version}" for name, version in versions.items() if version),
        "date": last["time_utc"][:10],
    }


def kept(path: Path, grid: Grid, scale: str, found: Sequence[Measurement]) -> list[Measurement]:
    """Return what a CSV has beside what was found, and say what it has of other configurations."""
    again = {one.run for one in found}
    earlier = [one for one in read_lines(path) if one.run not in again]
    places, old = set(grid.places), outdated(grid, scale, earlier)
    stay = [one for one in earlier if one.run not in old and one.place in places]
    gone = dict.fromkeys(one.run for one in earlier if one not in stay)
    if gone:
        print(f"left out, as {FOLDER / grid.stem}.yaml declares other runs now: {', '.join(gone)}")
    return stay


def collect_grid(grid: Grid, scale: str, output: Path, results: Path | None = None) -> bool:
    """Write the CSV of a grid at a scale and say what is in it; return False if no run has ended."""
    grid.scale(scale)
    found, missing = collect(grid, scale, output)
    if not found:
        return False
    path = csv_path(results or results_of(scale, output), scale, grid)
    earlier = kept(path, grid, scale, found)
    order = {place: number for number, place in enumerate(grid.places)}
    measurements = sorted([*found, *earlier], key=lambda one: (one.seed, order[one.place]))
    write_measurements(path, measurements)
    _say(path, grid, scale, measurements, len({one.run for one in earlier}), missing)
    return True


def _say(
    path: Path, grid: Grid, scale: str, measurements: list[Measurement], earlier: int, missing: list[Run]
) -> None:
    runs = {measurement.run for measurement in measurements}
    numbers = sum(one.value is not None for one in measurements)
    print(f"{path}: {numbers} numbers of {len(runs)} runs")
    if earlier:
        print(f"kept from before, as they have not ended in the folder of sweeps: {counted(earlier, 'run')}")
    diverged = dict.fromkeys(one.run for one in measurements if one.value is None)
    if diverged:
        print(f"diverged: {', '.join(diverged)}")
    titles = [run.title for run in missing if run.name not in runs]
    if titles:
        print(f"missing: {', '.join(titles)}; `python -m tools.sweep {grid.option} --scale {scale}`")
    if scale == SMOKE:
        print(f"Scale smoke shows that these cells of {grid.title} train; its numbers mean nothing.")


def _wanted(grid: Grid | None, scale: str | None, output: Path) -> list[tuple[Grid, str]]:
    """Return what is named, or else every table and study that has runs of its own, with its scale."""
    scales = [scale] if scale else list(SCALES)
    if grid is not None:
        return [(grid, name) for name in scales if scale or name in grid.scales]
    return [(one, name) for name in scales for one in all_grids() if one.folder(output, name).exists()]


def main(argv: Sequence[str] | None = None) -> None:
    """Collect what the command line names."""
    parser = tool_parser("collect", __doc__)
    add_grid_options(parser, required=False)
    parser.add_argument("--scale", choices=SCALES, help="all that have runs, unless given")
    parser.add_argument("--output", type=to_path, default=OUTPUT, help=f"folder of all sweeps ({OUTPUT})")
    parser.add_argument("--results", type=to_path, help="in whose folder tables/ the CSVs go (results)")
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        wanted = _wanted(chosen_grid(arguments), arguments.scale, arguments.output)
        done = [collect_grid(*one, arguments.output, arguments.results) for one in wanted]
    if not any(done):
        parser.error(f"no run in {arguments.output} of what was asked for has ended; run tools.sweep first")


if __name__ == "__main__":
    main()
