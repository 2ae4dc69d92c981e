"""results/STUDY.md: the studies' numbers, pictures and discussions."""

from pathlib import Path

from pwlu_ext.benchmarks.page import table as markdown_table
from tools.paper.grid import STUDIES, Cell
from tools.study.records import discussion, record_lines
from tools.study.study import CONFIDENCE, SCALE, Difference, StudyNumbers, paired_difference, read_study
from tools.tables.measurements import DIVERGED, MISSING, SHOWN, mean_and_spread, origins

PAGE = "STUDY.md"
TITLE = "The paper's claims in small networks on photographs"
_HEAD = f"""# {TITLE}

Made by `python -m tools.report` from the records in this folder; do not edit. The discussions quoted here are
in [study](study), the grids in [configs/sweeps](../configs/sweeps), each run's number and commit in
[tables](tables).

Networks, images and training are far smaller than the paper's: accuracies compare with each other only.

Top-1 in percent after the last step, mean ± standard deviation over n seeds. Differences are means over pairs
of runs with the same seed, with the {CONFIDENCE:.0%} interval of Student's t. Where a study has columns, a
name ends with that of its column. Three seeds cannot decide between cells that are close. A run whose loss
became NaN or infinite has diverged, and is in no mean.
"""
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
        *shown,
        *discussion(results, study.key),
        recipe(numbers),
        *origins(numbers.measurements),
        f"Commits: {', '.join(commits)}.",
        "",
    ]


def numbers_table(numbers: StudyNumbers) -> list[str]:
    """Return every cell's number and its difference to the reference as lines of a table."""
    rows = []
    for cell in numbers.study.cells:
        found = numbers.difference(cell)
        difference = [MISSING, MISSING] if found is None else [f"{found.mean:+.2f}", interval(found)]
        n = str(len(numbers.values[cell.name]))
        rows.append([numbers.label(cell), n, top1(numbers, cell), *difference])
    heads = ["", "n", SHOWN["top1"], f"− {numbers.compared_with}", f"{CONFIDENCE:.0%} interval"]
    return markdown_table(heads, rows)


def top1(numbers: StudyNumbers, cell: Cell) -> str:
    """Return `70.00 ± 0.50 (1 diverged)`, or what there is of it."""
    values, lost = list(numbers.values[cell.name].values()), len(numbers.diverged[cell.name])
    if not values:
        return f"{lost} {DIVERGED}" if lost else MISSING
    return mean_and_spread(values) + (f" ({lost} {DIVERGED})" if lost else "")


def interval(difference: Difference) -> str:
    """Return `-0.10 to +0.50`."""
    if difference.low is None or difference.high is None:
        return MISSING
    return f"{difference.low:+.2f} to {difference.high:+.2f}"


def networks_table(results: Path) -> list[str]:
    """Return the activation functions side by side, a line per network, and PWLU − ReLU."""
    studies = [read_study(name, results) for name in STUDIES if name.startswith("activations")]
    names = [cell.row for cell in studies[0].study.cells]
    rows = []
    for numbers in studies:
        cells = {cell.row: cell for cell in numbers.study.cells}
        pwlu, relu = (numbers.values[cells[row].name] for row in ("PWLU", "ReLU"))
        found = paired_difference(pwlu, relu)
        difference = MISSING if found is None else f"{found.mean:+.2f} ({interval(found)})"
        each = [top1(numbers, cell) for cell in cells.values()]
        rows.append([cells["PWLU"].column, str(len(pwlu)), *each, difference])
    return markdown_table(["network", "n", *names, f"PWLU − ReLU ({CONFIDENCE:.0%} interval)"], rows)


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
    return f"{scale.dataset}, {scale.train_images} training images; {'; '.join(shared)}.{varied}"
