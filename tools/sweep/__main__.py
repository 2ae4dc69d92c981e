"""Make the runs of one of the paper's tables or of our studies: in small or full, here or on a SLURM cluster.

    python -m tools.sweep --table 5 --scale smoke                                  # do all cells train?
    python -m tools.sweep --table 5 --scale small data.root=/datasets/imagenette2-160
    python -m tools.sweep --table 5 --dry-run                                      # the plan and its cost
    python -m tools.sweep --study starts --scale small data.root=/datasets/imagenette
    python -m tools.sweep --table 5 --launcher slurm --sbatch="--partition=gpu --time=24:00:00" \\
        data.root=/datasets/imagenet

Finished runs are skipped and broken ones resumed: to go on, give the same command again. Runs whose loss
became NaN or infinite are skipped too, as that is a result: to repeat one, remove its folder. On SLURM, wait
for the submitted array first. Then `python -m tools.collect` and `python -m tools.report` make the table.
"""

import argparse
import fnmatch
import os
import shlex
import sys
from collections.abc import Sequence

import torch

from engine.processes.distributed import available_cores
from engine.processes.program import EXIT_FAILED, EXIT_STOPPED, errors_told_by, to_path
from engine.records.console import say
from tools.paper.grid import OUTPUT, SCALES, Grid, add_grid_options, chosen_grid
from tools.records import positive, tool_parser
from tools.sweep.local import Job, LocalLauncher
from tools.sweep.plan import NEW, Item, assumption, plan, plan_text, require_sources, unfinished
from tools.sweep.slurm import array_path, sbatch_command, submit


def visible_gpus(words: Sequence[str]) -> list[str]:
    """Return the ids of the GPUs that runs with these settings may use, for CUDA_VISIBLE_DEVICES."""
    devices = [word for word in words if word.startswith("runtime.device=")]
    if devices[-1:] == ["runtime.device=cpu"] or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def run_locally(items: Sequence[Item], jobs: int | None) -> int:
    """Make the runs on this machine; return the exit status."""
    gpus = visible_gpus(items[0].run.arguments)
    at_once = jobs or len(gpus) or available_cores()
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, available_cores() // at_once)))
    where = f"{len(gpus)} GPUs" if gpus else "CPU"
    say(f"{at_once} at once on {where}, OpenMP threads of each: {threads}")
    outcome = LocalLauncher(at_once=at_once, gpus=gpus, threads=threads).run(list(map(_job, items)))
    for how, names in vars(outcome).items():
        if names:
            named = "" if how in ("finished", "waiting") else f" ({', '.join(names)})"
            say(f"{how}: {len(names)}{named}")
    if outcome.stopped or outcome.waiting:
        return EXIT_STOPPED
    return EXIT_FAILED if outcome.failed else 0


def _job(item: Item) -> Job:
    run = item.run
    # What has begun goes on from its own checkpoint.
    after = run.source.folder if run.source and item.state == NEW else None
    return Job(run.name, [sys.executable, *run.command], run.folder, after)


def submit_array(grid: Grid, items: Sequence[Item], arguments: argparse.Namespace) -> int:
    """Submit the runs as a SLURM array, or say how that would be done."""
    runs = [item.run for item in items]
    path = array_path(grid.folder(arguments.output, arguments.scale))
    options = shlex.split(arguments.sbatch)
    command = sbatch_command(runs, path, at_once=arguments.jobs, options=options)
    say(shlex.join(command))
    if not arguments.dry_run:
        say(submit(runs, path, command))
    return 0


def sweep(arguments: argparse.Namespace) -> int:
    """Print the plan, then do what is left of it; return the exit status."""
    grid = chosen_grid(arguments)
    assert grid is not None, "one is required"
    arguments.scale = grid.scale(arguments.scale).name
    runs = grid.runs(arguments.scale, arguments.output, arguments.seeds, arguments.overrides)
    runs = [run for run in runs if fnmatch.fnmatchcase(run.cell.name, arguments.cells)]
    if not runs:
        names = ", ".join(cell.name for cell in grid.cells)
        raise ValueError(f"--cells {arguments.cells!r} fits none of {grid.title}'s: {names}")
    items = plan(runs, arguments.images_per_second)
    say(plan_text(items, assumption(runs[0], arguments.images_per_second)))
    todo = unfinished(items)
    if not todo:
        say("nothing to do")
        return 0
    is_local = arguments.launcher == "local"
    if not arguments.dry_run:
        require_sources(todo, todo if is_local else ())  # an array's tasks start at any time
    if not is_local:
        return submit_array(grid, todo, arguments)
    return 0 if arguments.dry_run else run_locally(todo, arguments.jobs)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("sweep", __doc__)
    add_grid_options(parser, required=True)
    add = parser.add_argument
    add("--scale", choices=SCALES, help="full, or small for a study, unless given")
    add("--output", type=to_path, default=OUTPUT, help=f"folder of all sweeps ({OUTPUT})")
    seeds = "instead of those of configs/sweeps, such as 0,1,2"
    add("--seeds", type=_seeds, metavar="A,B,...", help=seeds)
    cells = "only cells whose names fit, such as 'r18_*' (all)"
    add("--cells", default="*", metavar="PATTERN", help=cells)
    add("--launcher", choices=("local", "slurm"), default="local", help="where (local)")
    add("--dry-run", action="store_true", help="print the plan and do nothing")
    jobs = "runs at the same time (here: one per GPU, else one per core)"
    add("--jobs", type=positive, metavar="N", help=jobs)
    speed = "training speed of one GPU or core, for the cost"
    add("--images-per-second", type=_positive_number, metavar="X", help=speed)
    add("--sbatch", default="", metavar="OPTIONS", help="options for sbatch: --sbatch='--partition=gpu ...'")
    overrides = "for all runs: data.root, data.workers, runtime.*; not what would change the experiment"
    add("overrides", nargs="*", metavar="key=value", help=overrides)
    return parser


def _seeds(text: str) -> list[int]:
    return list(dict.fromkeys(int(seed) for seed in text.split(",")))


def _positive_number(text: str) -> float:
    if float(text) <= 0:
        raise ValueError(text)
    return float(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    with errors_told_by(parser):
        return sweep(arguments)


if __name__ == "__main__":
    sys.exit(main())
