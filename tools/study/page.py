"""results/STUDY.md: the studies' numbers, tests, pictures and discussions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.paper.grid import STUDIES, Cell
from tools.study.paired import CONFIDENCE, Paired, compare_paired
from tools.study.records import record_lines
from tools.study.study import LEVEL, SCALE, Comparison, Study, label, read_study
from tools.tables.compare import SHOWN, mean_and_spread
from tools.tables.markdown import MISSING, origins

PAGE = "STUDY.md"
_HEAD = f"""# Does it hold? The paper's claims on photographs, with seeds

Made by `python -m tools.report` from the records in this folder; do not edit. What people make of the numbers
is in [study](study), and quoted here. The grids: [configs/sweeps](../configs/sweeps).

Networks, images and training are far smaller than the paper's, so accuracies compare with each other only,
and cannot decide whether a claim holds at the paper's own scale. They show what happens at this one, and why.

Top-1 in percent after the last step, mean ± standard deviation over seeds. A seed decides the initial
weights, the order of the images and their augmentation. Differences are taken seed by seed. Interval
({CONFIDENCE:.0%}) and p are those of a paired, two-sided t-test over seeds for one comparison alone;
"corrected" is Holm's p for all comparisons of a study, also those not made yet, and below {LEVEL:g} the first
counts as higher or lower. Comparisons are of the seeds that the grid declares; nothing is concluded before
all of them are in. With few seeds such tests find large and steady differences alone: "not told apart" does
not mean equal. A run diverged if its loss became NaN or infinite: it is in no mean, its seed in none of its
cell's differences, and comparisons with its cell conclude nothing.
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
    """Return results/STUDY.md by where it belongs, nothing if no study has numbers.

    Raises:
        ValueError: as `read_study` and `record_lines`.
    """
    studies = [study for name in STUDIES if (study := read_study(name, results)).measurements]
    if not studies:
        return {}
    lines = [_HEAD]
    for study in studies:
        lines += study_lines(study, results)
    return {results / PAGE: "\n".join(lines + record_lines(results))}


def networks_table(results: Path) -> list[str]:
    """Return the activation functions side by side, a line per network, and PWLU − ReLU."""
    studies = [read_study(name, results) for name in STUDIES if name.startswith("activations")]
    rows = [cell.row for cell in studies[0].grid.cells]
    titles = ["network", "n", *rows, f"PWLU − ReLU ({CONFIDENCE:.0%} interval)"]
    lines = [f"| {' | '.join(titles)} |", f"| --- |{' ---: |' * (len(titles) - 1)}"]
    for study in studies:
        values = {cell.row: study.values[cell.name] for cell in study.grid.cells}
        counts = sorted({len(one) for one in values.values() if one})
        means = [mean_and_spread(list(one.values())) if one else MISSING for one in values.values()]
        paired = compare_paired(values["PWLU"], values["ReLU"])
        difference = f"{paired.mean:+.2f} ({_interval(paired)})"
        column = study.grid.cells[0].column
        lines.append(f"| {' | '.join([column, ' to '.join(map(str, counts)), *means, difference])} |")
    return lines


def link_lines(pages: dict[Path, str]) -> list[str]:
    """Return a section of results/README.md that links to the page, none if there is none."""
    links = [f"[{text.splitlines()[0].removeprefix('# ')}]({path.name})" for path, text in pages.items()]
    return ["## Studies", "", *links, ""] if links else []


def study_lines(study: Study, results: Path) -> list[str]:
    """Return a study's section in Markdown."""
    picture = Path("figures") / f"{SCALE}_study_{study.name}.png"
    shown = [f"![{picture.stem}]({picture.as_posix()})", ""] if (results / picture).exists() else []
    return [
        f"## Study {study.name}: {study.grid.question}",
        "",
        f"*The paper:* {study.grid.claim}",
        "",
        *numbers_table(study),
        "",
        *comparisons_table(study),
        "",
        *shown,
        *([study.discussion, ""] if study.discussion else []),
        recipe(study),
        "",
        *_commits(study),
        *origins(study.measurements),
        "",
    ]


def numbers_table(study: Study) -> list[str]:
    """Return every cell's mean, spread and seeds as lines of a table."""
    heads = [f"seed {seed}" for seed in study.seeds]
    lines = [
        f"| | n | {SHOWN['top1']} | {' | '.join(heads)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(heads)}",
    ]
    for cell in study.grid.cells:
        values = study.values[cell.name]
        mean = mean_and_spread(list(values.values())) if values else MISSING
        each = " | ".join(_top1(study, cell, seed) for seed in study.seeds)
        lines.append(f"| {label(cell, study.grid)} | {len(values)} | {mean} | {each} |")
    return lines


def _top1(study: Study, cell: Cell, seed: int) -> str:
    if seed in study.diverged[cell.name]:
        return "diverged"
    values = study.values[cell.name]
    return f"{values[seed]:.2f}" if seed in values else MISSING


def comparisons_table(study: Study) -> list[str]:
    """Return what the tests say as lines of a table."""
    lines = [
        f"| first − second | n | difference | {CONFIDENCE:.0%} interval | p | corrected | first is |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in study.comparisons:
        names = f"{one.first.label} − {one.second.label}"
        lines.append(f"| {names} | {' | '.join(_cells(one))} | {one.verdict} |")
    return lines


def recipe(study: Study) -> str:
    """Return a sentence on what was trained how: what all cells share, and what differs between them."""
    declared = [run.declared for run in study.grid.runs(SCALE, Path(), seeds=[0])]
    scale = study.grid.scales[SCALE]
    shared: list[str] = []
    differing: list[str] = []
    for key, words in _RECIPE.items():
        values = list(dict.fromkeys(one[key] for one in declared))
        (shared if len(values) == 1 else differing).append(f"{words} {', '.join(map(_short, values))}")
    varied = f" By cell: {'; '.join(differing)}." if differing else ""
    return f"{scale.dataset}, {scale.train_images} training images; {'; '.join(shared)}.{varied}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cells(one: Comparison) -> list[str]:
    if one.paired is None:
        return ["0", *[MISSING] * 4]
    spread = "" if one.paired.spread is None else f" ± {one.paired.spread:.2f}"
    numbers = [str(len(one.paired.seeds)), f"{one.paired.mean:+.2f}{spread}", _interval(one.paired)]
    return [*numbers, _probability(one.paired.p), _probability(one.p_holm)]


def _interval(paired: Paired) -> str:
    if paired.low is None or paired.high is None:
        return MISSING
    return f"{paired.low:+.2f} to {paired.high:+.2f}"


def _probability(p: float | None) -> str:
    if p is None:
        return MISSING
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _commits(study: Study) -> Sequence[str]:
    commits = sorted({one.commit for one in study.measurements})
    runs = len({(one.run, one.seed) for one in study.measurements})
    return [f"{runs} runs, at {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}.", ""]
