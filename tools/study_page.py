"""results/STUDY.md: the studies' numbers, tests, pictures and discussions."""

from pathlib import Path

from tools.compare import mean_and_spread
from tools.paired import CONFIDENCE, Paired
from tools.report_tables import MISSING, origins
from tools.study import SCALE, Comparison, Study, label, read_study
from tools.study_records import record_lines
from tools.sweep_grid import SCALES, STUDIES

PAGE = "STUDY.md"
_HEAD = f"""# Does it hold? The paper's claims on photographs, with seeds

Made by `python -m tools.report` from the records in this folder; do not edit. What people make of the numbers
is in [study](study), and quoted here.

**Scale {SCALE}: {SCALES[SCALE]}.** {{scale}}
The grids, with all that is set: [configs/sweeps](../configs/sweeps).

Top-1 in percent after the last step, mean ± standard deviation over seeds. A seed decides the initial
weights, the order of the images and their augmentation. Differences are taken seed by seed; the interval
({CONFIDENCE:.0%}) and p are those of a paired, two-sided t-test over seeds, "corrected" is Holm's p for all
comparisons of one study, and a difference counts as shown where that is below 0.05. With few seeds such a
test finds large differences alone: "not told apart" does not mean equal, and the interval says what is still
possible.
"""


def study_page(results: Path) -> dict[Path, str]:
    """Return results/STUDY.md by where it belongs, nothing if no study has numbers.

    Raises:
        ValueError: as `read_study`.
    """
    studies = [study for name in STUDIES if (study := read_study(name, results)).measurements]
    if not studies:
        return {}
    lines = [_HEAD.format(scale=_scale(studies[0]))]
    for study in studies:
        lines += study_lines(study, results)
    lines += record_lines(results)
    return {results / PAGE: "\n".join(lines)}


def study_lines(study: Study, results: Path) -> list[str]:
    """Return a study's section in Markdown."""
    picture = Path("figures") / f"{SCALE}_study_{study.name}.png"
    shown = [f"![{picture.stem}]({picture.as_posix()})", ""] if (results / picture).exists() else []
    return [
        f"## {study.title}",
        "",
        f"*The paper:* {study.claim}",
        "",
        *numbers_table(study),
        "",
        *comparisons_table(study),
        "",
        *shown,
        *([study.discussion, ""] if study.discussion else []),
        *_commits(study),
        *origins(study.measurements),
        "",
    ]


def numbers_table(study: Study) -> list[str]:
    """Return every cell's mean, spread and seeds as lines of a table."""
    lines = ["| | n | top-1 (%) | seeds 0, 1, ... |", "| --- | ---: | ---: | --- |"]
    for cell in study.grid.cells:
        values = study.values[cell.name]
        mean = mean_and_spread(list(values.values())) if values else MISSING
        each = ", ".join(f"{values[seed]:.2f}" for seed in sorted(values))
        lines.append(f"| {label(cell, study)} | {len(values)} | {mean} | {each} |")
    return lines


def comparisons_table(study: Study) -> list[str]:
    """Return what the tests say as lines of a table."""
    lines = [
        f"| first − second | n | difference | {CONFIDENCE:.0%} interval | p | corrected | first is |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in study.comparisons:
        names = f"{label(one.first, study)} − {label(one.second, study)}"
        lines.append(f"| {names} | {' | '.join(_cells(one))} | {one.verdict} |")
    return lines


def _cells(one: Comparison) -> list[str]:
    if one.paired is None:
        return ["0", *[MISSING] * 4]
    spread = "" if one.paired.spread is None else f" ± {one.paired.spread:.2f}"
    corrected = MISSING if one.p_holm is None else f"{one.p_holm:.3f}"
    p = MISSING if one.paired.p is None else f"{one.paired.p:.3f}"
    return [
        str(len(one.paired.seeds)),
        f"{one.paired.mean:+.2f}{spread}",
        _interval(one.paired),
        p,
        corrected,
    ]


def _interval(paired: Paired) -> str:
    if paired.low is None or paired.high is None:
        return MISSING
    return f"{paired.low:+.2f} to {paired.high:+.2f}"


def _commits(study: Study) -> list[str]:
    commits = sorted({one.commit for one in study.measurements})
    runs = len({(one.run, one.seed) for one in study.measurements})
    return [f"{runs} runs, at {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}.", ""]


def _scale(study: Study) -> str:
    """Return what was trained on which images, in sentences."""
    runs = study.grid.runs(SCALE, Path(), seeds=[0])
    config, scale = runs[0].config, study.grid.scales[SCALE]
    return (
        f"{scale.dataset}: {scale.train_images} training images, {config.epochs} epochs in batches of "
        f"{config.global_batch_size}, T' = {config.phase1_epochs:g} epochs, peak learning rate "
        f"{config.optimizer.peak_lr:g}, weight decay {config.optimizer.weight_decay:g}, mixed precision "
        f"{config.runtime.amp}."
    )
