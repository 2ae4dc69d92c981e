"""results/STUDY.md: the studies' numbers, pictures and discussions."""

from collections.abc import Iterable
from pathlib import Path

from pwlu_ext.benchmarks.page import table as markdown_table
from tools.paper.grid import STUDIES, Cell, load_study
from tools.study.records import discussion, record_lines
from tools.study.study import CONFIDENCE, SCALE, Difference, StudyNumbers, read_study
from tools.sweep.plan import training_images
from tools.tables.measurements import DIVERGED, MISSING, SHOWN, mean_and_spread, origins

PAGE = "STUDY.md"
TITLE = "The paper's claims in small networks on photographs"
_HEAD = f"""# {TITLE}

Made by `python -m tools.report` from the records in this folder; do not edit. The discussions quoted here are
in [study](study), the grids in [configs/sweeps](../configs/sweeps), each run's number and commit in
[tables](tables).

Networks, images and training are far smaller than the paper's: numbers compare with each other only.

Top-1 in percent, and the cross-entropy of the validation images, after the last step: mean ± standard
deviation over n seeds. Differences are means over pairs of runs with the same seed, with the
{CONFIDENCE:.0%} interval of Student's t: where it holds zero, the study does not decide. An interval is for
its comparison alone: of twenty differences that are none, one falls outside by chance, and the best of
several cells looks better than it is. So one start of PWLU was named before the runs, after a pilot on the
same images: LeakyReLU(0.25), a function for every channel. One function per layer with N = 4 is the best of
study num_intervals; the studies of other networks and longer training had no part in that choice. Where a
study has columns, a name ends with that of its column. A run whose loss became NaN or infinite has
diverged, and is in no mean and no difference.
"""
_DIGITS = {"loss": 3}  # two of all others
# The rows of README's table below ReLU's, differences to it.
_ROWS = ("swish", "prelu", "pau", "leaky_relu", "pwlu-relu", "pwlu-leaky_relu", "layer-leaky_relu-N4")
# What a reader wants to know of a recipe, with its words.
_RECIPE = {
    "model.name": "network",
    "epochs": "epochs",
    "global_batch_size": "images per batch",
    "phase1_epochs": "T' in epochs",
    "optimizer.peak_lr": "peak learning rate",
    "optimizer.weight_decay": "weight decay",
    "schedule.warmup_epochs": "warm-up in epochs",
    "data.image_size_px": "pixels",
    "runtime.amp": "mixed precision",
}


def study_page(results: Path) -> dict[Path, str]:
    """Return results/STUDY.md by where it belongs, nothing if no study has numbers."""
    studies = [found for name in STUDIES if (found := read_study(name, results)).measurements]
    if not studies:
        return {}
    lines = [_HEAD]
    for numbers in studies:
        lines += study_lines(numbers, results)
    return {results / PAGE: "\n".join(lines + record_lines(results))}


def study_lines(numbers: StudyNumbers, results: Path) -> list[str]:
    """Return a study's section in Markdown."""
    study = numbers.study
    picture = Path("figures") / f"{SCALE}_study_{study.key}.png"
    commits = sorted({one.commit for one in numbers.measurements})
    shown = [f"![{picture.stem}]({picture.as_posix()})", ""] * (results / picture).exists()
    return [
        f"## Study {study.key}: {study.question}",
        "",
        f"*The paper:* {study.claim}",
        "",
        *numbers_table(numbers),
        "",
        *gains_lines(numbers),
        *shown,
        *discussion(results, study.key),
        recipe(numbers),
        *origins(numbers.measurements),
        f"Commits: {', '.join(commits)}.",
        "",
    ]


def numbers_table(numbers: StudyNumbers) -> list[str]:
    """Return every cell's numbers and their differences to the reference as lines of a table."""
    heads = ["", "n"]
    for metric in numbers.values:
        heads += [SHOWN[metric], f"− {numbers.compared_with} ({CONFIDENCE:.0%} interval)"]
    rows = []
    for cell in numbers.study.cells:
        row = [numbers.label(cell), str(max(len(cells[cell.name]) for cells in numbers.values.values()))]
        for metric in numbers.values:
            row += [mean_of(numbers, metric, cell), told(numbers.to_reference(metric, cell), metric)]
        rows.append(row)
    return markdown_table(heads, rows)


def gains_lines(numbers: StudyNumbers) -> list[str]:
    """Return a table per metric: each cell with PWLU minus each function that the study names."""
    study = numbers.study
    if not study.against:
        return []
    runs = study.runs(SCALE, Path(), seeds=[0])
    cells = [run.cell for run in runs if run.declared["activation.name"] == "pwlu"]
    heads = ["", "pairs", *(f"− {other.row}" for other in study.others_of(cells[0]))]
    lines = []
    for metric in numbers.values:
        rows = []
        for cell in cells:
            found = [numbers.difference(metric, cell, other) for other in study.others_of(cell)]
            rows.append([numbers.label(cell), pairs(found), *(told(one, metric) for one in found)])
        lines += [f"PWLU minus other functions, {SHOWN[metric]}, with {CONFIDENCE:.0%} intervals:", ""]
        lines += [*markdown_table(heads, rows), ""]
    return lines


def pairs(differences: Iterable[Difference | None]) -> str:
    """Return over how many seeds differences are means: `8`, `5 to 8`; those without any are left out."""
    counts = sorted({len(one.seeds) for one in differences if one})
    return " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]]))) or "0"


def mean_of(numbers: StudyNumbers, metric: str, cell: Cell) -> str:
    """Return `70.00 ± 0.50 (1 diverged)`, or what there is of it."""
    values = list(numbers.values[metric][cell.name].values())
    mean = mean_and_spread(values, _DIGITS.get(metric, 2)) if values else MISSING
    return with_diverged(mean, numbers, cell)


def with_diverged(text: str, numbers: StudyNumbers, cell: Cell) -> str:
    """Return a cell's number with how many of its runs diverged, or that alone if there is no number."""
    lost = len(numbers.diverged[cell.name])
    if not lost:
        return text
    return f"{lost} {DIVERGED}" if text == MISSING else f"{text} ({lost} {DIVERGED})"


def told(difference: Difference | None, metric: str) -> str:
    """Return `+0.20 (-0.10 to +0.50)`, or what there is of it."""
    if difference is None:
        return MISSING
    digits = _DIGITS.get(metric, 2)
    mean = f"{difference.mean:+.{digits}f}"
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} ({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"


def networks_table(results: Path) -> list[str]:
    """Return a column per study that compares with ReLU: its top-1, and the others' minus that."""
    labels: dict[str, str] = {}
    columns = []
    for numbers in (read_study(name, results) for name in STUDIES if load_study(name).against):
        cells = {cell.name.removeprefix(f"{cell.column_key}_"): cell for cell in numbers.study.cells}
        if "relu" not in cells:
            continue
        labels = {key: cell.row for key, cell in cells.items()} | labels
        if not numbers.measurements:
            continue
        relu = cells["relu"]
        found = {key: numbers.difference("top1", cells[key], relu) for key in _ROWS if key in cells}
        column = [relu.column, pairs(found.values()), mean_of(numbers, "top1", relu)]
        for key in _ROWS:
            gain = told(found.get(key), "top1")
            column.append(with_diverged(gain, numbers, cells[key]) if key in cells else gain)
        columns.append(column)
    names = ["", "pairs", labels["relu"], *(labels[key] for key in _ROWS)]
    heads, *rows = zip(names, *columns, strict=True)
    return markdown_table(heads, rows)


def plan_table(results: Path) -> list[str]:
    """Return what each study runs and costs, a line each; what two studies share counts where it is made."""
    rows = []
    hours_of_all = 0.0
    for study in map(load_study, STUDIES):
        scale = study.scales[SCALE]
        assert scale.images_per_core_second is not None, "studies are for CPUs"
        cells = study.runs(SCALE, Path(), seeds=[0])
        own = [run for run in cells if not run.cell.is_shared]
        seeds = len(scale.seeds)
        hours = seeds * sum(map(training_images, own)) / scale.images_per_core_second / 3600
        hours_of_all += hours
        counts = [len(cells), seeds, len(own) * seeds]
        rows.append([f"{study.key}: {study.question}", *map(str, counts), f"{hours:.1f}"])
    rows.append(["all", "", "", "", f"{hours_of_all:.1f}"])
    return markdown_table(["study", "cells", "seeds", "runs of its own", "core-hours"], rows)


def recipe(numbers: StudyNumbers) -> str:
    """Return a sentence on what was trained how: what all cells share, and what differs between them."""
    declared = [run.declared for run in numbers.study.runs(SCALE, Path(), seeds=[0])]
    scale = numbers.study.scales[SCALE]
    shared: list[str] = []
    differing: list[str] = []
    for key, words in _RECIPE.items():
        values = [
            f"{value:g}" if isinstance(value, float) else str(value)
            for value in (one[key] for one in declared)
        ]
        different = list(dict.fromkeys(values))
        (shared if len(different) == 1 else differing).append(f"{words} {', '.join(different)}")
    varied = f" By cell: {'; '.join(differing)}." if differing else ""
    source = numbers.study.source
    started = f" Its own runs start from those of {source.cells[0].runs_in}, same seed." if source else ""
    return f"{scale.dataset}, {scale.train_images} training images; {'; '.join(shared)}.{varied}{started}"
