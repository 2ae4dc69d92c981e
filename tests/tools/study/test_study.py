"""The studies: their grids, what is made of their numbers, and the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.tools.sweep_records import write_run
from tools import collect, report
from tools.paper.grid import STUDIES, Run, load_study
from tools.study import figures
from tools.study.page import PAGE, networks_table, numbers_table, recipe
from tools.study.study import SCALE, Difference, paired_difference, read_study
from tools.sweep import __main__ as sweep

# What the cells of a study may differ in.
AXES = {
    "activations": {"activation.name"},
    "activations_mbv3": {"activation.name"},
    "activations_effb0": {"activation.name"},
    "boundaries": {"activation.name", "activation.mode", "activation.bound", "phase1_epochs"},
    "intervals": {"activation.num_intervals"},
    "noise": {
        "activation.name",
        "activation.mode",
        "optimizer.activation_lr_multiplier",
        "epochs",
        "phase1_epochs",
        "global_batch_size",
        "schedule.warmup_epochs",
    },
    "length": {"activation.name", "epochs", "phase1_epochs", "schedule.warmup_epochs"},
    "choices": {"optimizer.activation_weight_decay", "optimizer.activation_lr_multiplier", "phase1_epochs"},
}
SEEDS = {0: 60.0, 1: 61.0, 2: 62.5}


def runs_of(study: str, output: Path = Path("runs"), **options: Any) -> list[Run]:
    return load_study(study).runs(SCALE, output, **options)


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_loads_and_differs_from_the_others_in_the_axis_alone(study: str) -> None:
    runs = runs_of(study, seeds=[0])
    assert len({run.folder for run in runs}) == len({run.name for run in runs}) == len(runs)
    assert all(run.config for run in runs)
    declared = [run.declared for run in runs]
    assert {key for one in declared for key in one if one[key] != declared[0][key]} == AXES[study]
    assert all(one not in declared[:index] for index, one in enumerate(declared))


@pytest.mark.parametrize("study", STUDIES)
def test_every_cell_is_compared_with_the_reference_of_its_column(study: str) -> None:
    cells = load_study(study).cells
    references = {cell.name: load_study(study).reference_of(cell) for cell in cells}
    assert all(one.column == cell.column for cell in cells if (one := references[cell.name]))
    without = {name for name, one in references.items() if one is None} - {"baseline"}
    assert without == {one.name for one in references.values() if one}
    assert len(without) == len({cell.column for cell in cells if cell.column != "both"})


@pytest.mark.parametrize("study", STUDIES)
def test_a_shared_run_is_the_same_experiment_where_it_is_made(study: str) -> None:
    made = {
        run.folder: run
        for other in STUDIES
        for run in runs_of(other)
        if run.folder.parent.name == f"study_{other}"
    }
    for run in runs_of(study):
        assert made[run.folder].declared == run.declared
    assert len(made) < sum(len(runs_of(other)) for other in STUDIES)


def test_a_difference_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1; the 97.5 % quantile of t for two degrees is 4.30265.
    found = paired_difference({0: 11.0, 1: 22.0, 2: 33.0, 9: 0.0}, {2: 30.0, 1: 20.0, 0: 10.0, 8: 5.0})
    half = 4.30265 / 3**0.5
    assert found and found.seeds == (0, 1, 2) and found.mean == 2
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-5)


def test_differences_of_few_seeds() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({3: 5.0}, {3: 4.0}) == Difference((3,), 1.0)
    assert paired_difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == Difference((0, 1), 0.0, 0.0, 0.0)


def write_study(
    output: Path,
    study: str,
    values: dict[str, dict[int, float]],
    diverged: Mapping[str, list[int]] = MappingProxyType({}),
) -> None:
    """Write runs with these values of top-1 by cell and seed, and runs that diverged."""
    for run in runs_of(study, output, seeds=[0, 1, 2]):
        value = values.get(run.cell.name, {}).get(run.seed)
        if run.seed in diverged.get(run.cell.name, []):
            write_run(run, {}, diverged=True)
        elif value is not None:
            write_run(run, {"top1": value})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """N = 16 in three seeds, N = 8 three points below, one seed of N = 20; N = 4, one N = 12 diverged."""
    values = {
        "r18_N16": SEEDS,
        "r18_N8": {seed: value - 3 - 0.01 * seed for seed, value in SEEDS.items()},
        "r18_N20": {1: 60.0},
        "r18_N12": {0: 61.0, 2: 63.5},
    }
    write_study(tmp_path / "sweeps", "intervals", values, {"r18_N4": [0, 1, 2], "r18_N12": [1]})
    folder = tmp_path / "results"
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(folder), "--study", "intervals"])
    return folder


def test_the_table_has_n_mean_and_the_paired_difference(results: Path) -> None:
    numbers = read_study("intervals", results)
    assert numbers.values["r18_N16"] == SEEDS and numbers.diverged["r18_N12"] == [1]
    assert numbers_table(numbers) == [
        "|  | n | top-1 (%) | − N = 16 | 95% interval |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| N = 4 | 0 | 3 diverged | — | — |",
        "| N = 8 | 3 | 58.16 ± 1.25 | -3.01 | -3.03 to -2.99 |",
        "| N = 12 | 2 | 62.25 ± 1.77 (1 diverged) | +1.00 | +1.00 to +1.00 |",
        "| N = 16 | 3 | 61.17 ± 1.26 | — | — |",
        "| N = 20 | 1 | 60.00 | -1.00 | — |",
    ]


def test_the_page_says_what_was_asked_and_measured(results: Path) -> None:
    (results / "study").mkdir()
    (results / "study" / "intervals.md").write_text("A few words about it.\n")
    report.main(["--results", str(results)])
    text = (results / PAGE).read_text()
    assert "## Study intervals: how many intervals does a function need?" in text
    assert "A few words about it." in text and "Commits: 0123456789." in text
    assert "9469 training images; network resnet18_025; epochs 30; images per batch 256;" in text
    assert "By cell: epochs 30, 8; images per batch 256, 64;" in recipe(read_study("noise", results))
    assert "By cell" not in text and "## Study choices" not in text
    assert f"]({PAGE})" in (results / "README.md").read_text()
    (results / "study" / "intervals.md").write_text("Other words.\n")
    with pytest.raises(SystemExit, match=PAGE):
        report.main(["--results", str(results), "--check"])


def test_networks_stand_side_by_side(tmp_path: Path) -> None:
    write_study(
        tmp_path / "sweeps",
        "activations_mbv3",
        {"mbv3_relu": SEEDS, "mbv3_pwlu": {0: 61.0, 1: 62.0}},
        {"mbv3_pau": [0, 1, 2]},
    )
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    line = "| MobileNet-V3 small, 1/2 width | 2 | 61.17 ± 1.26 | — | — | — | 3 diverged | — | 61.50 ± 0.71 | "
    assert line + "+1.00 (+1.00 to +1.00) |" in networks_table(tmp_path)


def test_the_picture_has_a_line_per_cell(results: Path) -> None:
    numbers = read_study("intervals", results)
    accuracies, differences = figures.draw_study(numbers).get_axes()
    assert [text.get_text() for text in accuracies.get_yticklabels()] == [
        f"N = {n}" for n in (4, 8, 12, 16, 20)
    ]
    assert [text.get_text() for text in accuracies.texts] == ["3 diverged"]
    points = {
        line.get_ydata()[0]: list(line.get_xdata())
        for line in accuracies.get_lines()
        if line.get_marker() == "o"
    }
    assert points[3] == list(SEEDS.values()) and points[4] == [60.0]  # N = 16, N = 20
    spans = {tuple(line.get_ydata()): list(line.get_xdata()) for line in differences.get_lines()}
    eight = numbers.difference(numbers.study.cells[1])
    assert eight and spans[1, 1] == [eight.low, eight.high] and spans[1,] == [eight.mean]
    assert (3,) not in spans and (4,) in spans and (4, 4) not in spans
    figures.main(["--results", str(results)])
    record = json.loads((results / "figures" / "small_study_intervals.json").read_text())
    assert record["differences_to"] == "N = 16" and record["cells"][1]["difference"]["mean"] == eight.mean


def test_a_shared_run_counts_in_every_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "sweeps", "activations", {"r18_pwlu": SEEDS})
    write_study(tmp_path / "sweeps", "choices", {"r18_decay": {0: 50.0}})
    words = ["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)]
    collect.main(words)
    assert read_study("choices", tmp_path).values["r18_default"] == SEEDS
    assert not (tmp_path / "tables" / "small_study_boundaries.csv").exists()  # it has no run of its own
    printed = capsys.readouterr().out
    assert "r18_T-short_seed0, " in printed
    assert "`python -m tools.sweep --study choices --scale small`" in printed
    collect.main([*words, "--study", "boundaries", "--scale", "small"])
    assert read_study("boundaries", tmp_path).values["channel-wise_stat-realign"] == SEEDS
    assert "baseline_seed0 = study_activations/r18_relu_seed0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--study", "boundaries", "--scale", "full"], "--scale full: study boundaries has the scales small"),
        (["--study", "boundary"], "study is 'boundary', expected one of activations,"),
        (["--table", "0"], "table 0: expected one of 2, 3, 5, 6, 7"),
        (["--table", "2", "--study", "noise"], "not allowed with argument"),
    ],
)
@pytest.mark.parametrize("tool", [collect, sweep])
def test_a_wrong_table_or_study_is_explained(
    tool: Any, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.main([*words, "--output", str(tmp_path)])
    assert sentence in capsys.readouterr().err


def test_a_study_is_planned_at_its_own_scale_in_core_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main(["--study", "noise", "--dry-run", "--output", str(tmp_path), "--seeds", "0"]) == 0
    printed = capsys.readouterr().out
    assert "b256_relu_seed0 = study_activations/r18_relu_seed0" in printed
    assert (
        "Scale small: Imagenette" in printed
        and "core-hours at 900 training images per second and core." in printed
    )


def test_without_numbers_there_is_no_page_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main(["--results", str(tmp_path)])
    assert not (tmp_path / PAGE).exists()
    with pytest.raises(SystemExit):
        figures.main(["--results", str(tmp_path)])
    assert f"has no numbers of {', '.join(STUDIES)}; run tools.sweep" in capsys.readouterr().err


def test_a_reference_that_is_no_cell_is_explained() -> None:
    study = load_study("intervals")
    broken = type(study)(**vars(study) | {"reference": "r18_N5"})
    with pytest.raises(ValueError, match="reference is 'r18_N5', expected one of r18_N4"):
        broken.reference_of(study.cells[0])
