"""Submits a sweep as one SLURM array: a list of runs for scripts/sweep.sbatch, and the command."""

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.files import write_text_atomically
from tools.paper.grid import Run

SCRIPT = "scripts/sweep.sbatch"


def array_list(runs: Sequence[Run]) -> str:
    """Return the list of runs: one per line, trainer and arguments separated by tabs."""
    lines = [[run.program, *run.arguments] for run in runs]
    for word in itertools.chain(*lines):
        if "\t" in word or "\n" in word:
            raise ValueError(f"{word!r} holds a tab or a line break, which an array's list cannot; rename it")
    return "".join("\t".join(words) + "\n" for words in lines)


def array_path(folder: Path) -> Path:
    """Return the first unused name of a list below the sweep's folder."""
    # An array that waits in the queue keeps its own list.
    names = (folder / f"array-{number}.tsv" for number in itertools.count(1))
    return next(path for path in names if not path.exists())


def sbatch_command(
    runs: Sequence[Run], path: Path, *, at_once: int | None, options: Sequence[str]
) -> list[str]:
    """Return the command that submits the list at `path`, of which `at_once` run at the same time."""
    run = runs[0]
    array = f"--array=0-{len(runs) - 1}" + (f"%{at_once}" if at_once else "")
    # Scale full has the GPUs of scripts/sweep.sbatch; `options`, which come later, win over both.
    sizes = [] if run.scale.name == "full" else ["--gpus-per-node=1", "--cpus-per-task=8"]
    name = f"--job-name=pwlu-{run.cell.grid}-{run.scale.name}"
    log = f"--output={path.parent}/slurm-%A_%a.out"
    return ["sbatch", array, name, log, *sizes, *options, SCRIPT, str(path)]


def submit(runs: Sequence[Run], path: Path, command: Sequence[str]) -> str:
    """Write the list and submit it; return what sbatch printed. Raises ValueError where it cannot."""
    text = array_list(runs)
    if shutil.which(command[0]) is None:
        raise ValueError(f"{command[0]} not found: --launcher slurm needs a machine that submits to SLURM")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)
    done = subprocess.run(list(command), capture_output=True, text=True)
    if done.returncode != 0:
        path.unlink()
        raise ValueError(f"sbatch exits with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()
