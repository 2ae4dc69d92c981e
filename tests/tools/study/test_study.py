"""The studies: their grids, what is made of their numbers, and the page."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from engine.config.load import experiment_of
from tests.tools.sweep_records import write_run
from tools import collect, report
from tools.paper.grid import FOLDER, STUDIES, Run, load_study
from tools.study import figures
from tools.study.page import PAGE, gains_lines, networks_table, numbers_table, plan_table, recipe
from tools.study.study import SCALE, Difference, paired_difference, read_study
from tools.sweep import __main__ as sweep

# What the cells of a study may differ in.
STARTS = {"activation.name", "activation.init", "activation.mode", "activation.num_intervals"}
TUNED = {  # also how the network was trained before
    "activation.name",
    "activation.init",
    "optimizer.activation_lr_multiplier",
    "optimizer.train_only",
    "optimizer.peak_lr",
    "epochs",
    "phase1_epochs",
    "schedule.warmup_epochs",
}
AXES = {
    "starts": STARTS,
    "starts_mbv3": STARTS,
    "starts_effb0": STARTS,
    "num_intervals": {"activation.num_intervals", "activation.init", "activation.mode"},
    "realignment": {"activation.mode", "activation.bound", "phase1_epochs"},
    "recipe": {"optimizer.activation_weight_decay", "optimizer.activation_lr_multiplier", "phase1_epochs"},
    "rates": {"activation.name", "activation.init", "optimizer.activation_lr_multiplier"},
    "long": STARTS,
    "finetune": TUNED,
    "finetune_mbv3": TUNED,
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
        for run in runs_of(other, seeds=[0])
        if run.folder.parent.name == f"study_{other}"
    }
    for run in runs_of(study, seeds=[0]):
        assert (made[run.folder].declared, made[run.folder].hash) == (run.declared, run.hash)
    assert len(made) < sum(len(runs_of(other, seeds=[0])) for other in STUDIES)


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
    """Write runs with these values of top-1 by cell and seed, losses that fit, and runs that diverged."""
    for run in runs_of(study, output, seeds=[0, 1, 2]):
        value = values.get(run.cell.name, {}).get(run.seed)
        if run.seed in diverged.get(run.cell.name, []):
            write_run(run, {}, diverged=True)
        elif value is not None:
            write_run(run, {"top1": value, "loss": 2 - value / 50})


def collected(tmp_path: Path, *words: str) -> Path:
    """The folder of the results that tools.collect makes of the runs."""
    folder = tmp_path / "results"
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(folder), *words])
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Decay three points below the default; one seed of a low rate, two of a high one; no T' = 20 %."""
    values = {
        "r18_default": SEEDS,
        "r18_decay": {seed: value - 3 - 0.01 * seed for seed, value in SEEDS.items()},
        "r18_rate-low": {1: 60.0},
        "r18_rate-high": {0: 61.0, 2: 63.5},
    }
    write_study(tmp_path / "sweeps", "recipe", values, {"r18_T-long": [0, 1, 2], "r18_rate-high": [1]})
    return collected(tmp_path, "--study", "recipe")


def test_the_table_has_both_metrics_and_their_paired_differences(results: Path) -> None:
    numbers = read_study("recipe", results)
    assert numbers.values["top1"]["r18_default"] == SEEDS and numbers.diverged["r18_rate-high"] == [1]
    interval = "− default (95% interval)"
    assert numbers_table(numbers) == [
        f"|  | n | top-1 (%) | {interval} | validation loss | {interval} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| default | 3 | 61.17 ± 1.26 | — | 0.777 ± 0.025 | — |",
        # Differences -3, -3.01, -3.02 (losses: a fiftieth): half the interval is 4.30265 * 0.01 / sqrt(3).
        "| weight decay 2e-3 | 3 | 58.16 ± 1.25 | -3.01 (-3.03 to -2.99) | 0.837 ± 0.025 "
        "| +0.060 (+0.060 to +0.061) |",
        "| learning rate x 0.2 | 1 | 60.00 | -1.00 | 0.800 | +0.020 |",
        "| learning rate x 5 | 2 | 62.25 ± 1.77 (1 diverged) | +1.00 (+1.00 to +1.00) "
        "| 0.755 ± 0.035 (1 diverged) | -0.020 (-0.020 to -0.020) |",
        "| no phase I | 0 | — | — | — | — |",
        "| T' = 1 % | 0 | — | — | — | — |",
        "| T' = 20 % | 0 | 3 diverged | — | 3 diverged | — |",
        "| T' = 50 % | 0 | — | — | — | — |",
    ]


def test_the_page_says_what_was_asked_and_measured(results: Path) -> None:
    (results / "study").mkdir()
    (results / "study" / "recipe.md").write_text("A few words about it.\n")
    report.main(["--results", str(results)])
    text = (results / PAGE).read_text()
    assert "## Study recipe: what should a user choose where the paper is silent?" in text
    assert "A few words about it." in text and "Commits: 0123456789." in text
    assert "9469 training images; network resnet18_025; epochs 10; images per batch 256;" in text
    assert "By cell: T' in epochs 0.5, 0, 0.1, 2, 5." in text
    assert "## Study starts" not in text and "minus other functions" not in text
    assert "By cell" not in recipe(read_study("long", results))
    start = "Its own runs start from those of study_long/r18_relu, same seed."
    assert start in recipe(read_study("finetune", results)) and "start from" not in text
    assert f"]({PAGE})" in (results / "README.md").read_text()
    (results / "study" / "recipe.md").write_text("Other words.\n")
    with pytest.raises(SystemExit, match=PAGE):
        report.main(["--results", str(results), "--check"])


def test_pwlu_is_compared_with_each_other_function_from_every_start(tmp_path: Path) -> None:
    values = {
        "mbv3_relu": SEEDS,
        "mbv3_leaky_relu": {0: 62.0, 1: 63.0, 2: 64.5},
        "mbv3_pwlu-leaky_relu": {0: 63.0, 1: 64.0},
        "mbv3_pwlu-relu": {1: 60.0},
    }
    write_study(tmp_path / "sweeps", "starts_mbv3", values, {"mbv3_pau": [0, 1, 2]})
    folder = collected(tmp_path)
    text = "\n".join(gains_lines(read_study("starts_mbv3", folder)))
    heads = "|  | pairs | − ReLU | − LeakyReLU(0.25), fixed | − Swish | − PReLU | − PAU |"
    both = "+3.00 (+3.00 to +3.00) | +1.00 (+1.00 to +1.00) | — | — | — |"
    assert text.count(heads) == 2
    assert f"| PWLU from LeakyReLU(0.25) | 2 | {both}" in text
    assert "| PWLU from ReLU (the paper's) | 1 | -1.00 | -3.00 | — | — | — |" in text
    assert "| PWLU from SiLU | 0 | — | — | — | — | — |" in text
    assert "| PWLU from LeakyReLU(0.25) | 2 | -0.060 (-0.060 to -0.060) | -0.020" in text
    # README: ReLU's mean, the others minus ReLU; studies without numbers are left out.
    heads, _, seeds, *rows = networks_table(folder)
    assert (heads, seeds) == ("|  | MobileNet-V3 small, 1/2 width |", "| pairs | 1 to 3 |")
    assert rows == [
        "| ReLU | 61.17 ± 1.26 |",
        "| Swish | — |",
        "| PReLU | — |",
        "| PAU | 3 diverged |",
        "| LeakyReLU(0.25), fixed | +2.00 (+2.00 to +2.00) |",
        "| PWLU from ReLU (the paper's) | -1.00 |",
        "| PWLU from LeakyReLU(0.25) | +3.00 (+3.00 to +3.00) |",
        "| PWLU from LeakyReLU(0.25), layer-wise, N = 4 | — |",
    ]


def test_the_picture_has_a_line_per_cell(results: Path) -> None:
    numbers = read_study("recipe", results)
    values, *differences = figures.draw_study(numbers).get_axes()
    labels = [text.get_text() for text in values.get_yticklabels()]
    assert labels == [cell.row for cell in numbers.study.cells] and len(differences) == 2
    assert [text.get_text() for text in values.texts] == ["missing", "missing", "3 diverged", "missing"]
    points = {
        line.get_ydata()[0]: list(line.get_xdata()) for line in values.get_lines() if line.get_marker() == "o"
    }
    assert points[0] == list(SEEDS.values()) and points[2] == [60.0]  # the default, the low rate
    decay = numbers.study.cells[1]
    for panel, metric in zip(differences, ("top1", "loss"), strict=True):
        spans = {tuple(line.get_ydata()): list(line.get_xdata()) for line in panel.get_lines()}
        found = numbers.to_reference(metric, decay)
        assert found and spans[1, 1] == [found.low, found.high] and spans[1,] == [found.mean]
        assert (0,) not in spans and (2,) in spans and (2, 2) not in spans
    figures.main(["--results", str(results)])
    record = json.loads((results / "figures" / "small_study_recipe.json").read_text())
    assert (
        record["differences_to"] == "default" and record["cells"][1]["loss_difference"]["mean"] == found.mean
    )
    assert record["cells"][1]["top1_by_seed"]["0"] == 57.0


def test_a_shared_run_counts_in_every_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "sweeps", "starts", {"r18_pwlu-relu": SEEDS})
    write_study(tmp_path / "sweeps", "recipe", {"r18_decay": {0: 50.0}})
    folder = collected(tmp_path)
    assert read_study("recipe", folder).values["top1"]["r18_default"] == SEEDS
    assert not (folder / "tables" / "small_study_realignment.csv").exists()  # it has no run of its own
    printed = capsys.readouterr().out
    assert "r18_T-short_seed0, " in printed
    assert "`python -m tools.sweep --study recipe --scale small`" in printed
    collected(tmp_path, "--study", "num_intervals", "--scale", "small")
    assert read_study("num_intervals", folder).values["top1"]["relu_N16"] == SEEDS
    assert "leaky_relu_N16_seed0 = study_starts/r18_pwlu-leaky_relu_seed0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--study", "realignment", "--scale", "full"],
            "--scale full: study realignment has the scales small",
        ),
        (["--study", "boundary"], "study is 'boundary', expected one of starts,"),
        (["--table", "0"], "table 0: expected one of 2, 3, 5, 6, 7"),
        (["--table", "2", "--study", "recipe"], "not allowed with argument"),
    ],
)
@pytest.mark.parametrize("tool", [collect, sweep])
def test_a_wrong_table_or_study_is_explained(
    tool: Any, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.main([*words, "--output", str(tmp_path)])
    assert sentence in capsys.readouterr().err


def test_the_plan_counts_every_run_once_and_adds_up(tmp_path: Path) -> None:
    *lines, total = plan_table(tmp_path)[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    runs = {run.folder for name in STUDIES for run in runs_of(name)}
    assert sum(int(cell[3]) for cell in cells) == len(runs)
    # 14 cells, one of another study, of 8 seeds and 10 epochs of 36 batches of 256, at 1400 images per second
    assert cells[0][1:] == ["14", "8", "104", f"{104 * 10 * 36 * 256 / 1400 / 3600:.1f}"]
    assert float(total.split("|")[-2]) == pytest.approx(sum(float(cell[4]) for cell in cells), abs=0.3)


def test_a_seed_is_complete_before_the_next_begins() -> None:
    assert [run.seed for run in runs_of("recipe")] == sorted(list(range(8)) * 8)


def test_a_study_is_planned_at_its_own_scale_in_core_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        sweep.main(["--study", "num_intervals", "--dry-run", "--output", str(tmp_path), "--seeds", "0"]) == 0
    )
    printed = capsys.readouterr().out
    assert "relu_N16_seed0 = study_starts/r18_pwlu-relu_seed0" in printed
    assert (
        "Scale small: Imagenette" in printed
        and "core-hours at 1400 training images per second and core." in printed
    )


def test_without_numbers_there_is_no_page_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main(["--results", str(tmp_path)])
    assert not (tmp_path / PAGE).exists()
    with pytest.raises(SystemExit):
        figures.main(["--results", str(tmp_path)])
    assert f"has no numbers of {', '.join(STUDIES)}; run tools.sweep" in capsys.readouterr().err


def test_fine_tuning_starts_from_the_run_of_the_same_seed() -> None:
    source, *tuned = runs_of("finetune", seeds=[3])
    assert source.source is None and source.folder == Path("runs/small/study_long/r18_relu_seed3")
    assert all(run.arguments[-2:] == ["--init-from", f"{source.folder}/checkpoints/last.pt"] for run in tuned)
    (of_trainer,) = {experiment_of(source.config).hash, source.hash}  # what its checkpoint says of itself
    assert {run.starts_from for run in tuned} == {f"run {of_trainer}"}
    without = [replace(run, source=None).hash for run in tuned]
    assert len({run.hash for run in tuned} | set(without)) == 2 * len(tuned)
    assert {run.source for run in runs_of("starts_mbv3", seeds=[3])} == {None}


def test_a_fine_tuned_run_counts_if_it_started_from_the_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, control, converted, *_ = runs_of("finetune", tmp_path / "sweeps", seeds=[0])
    write_run(control, {"top1": 70.0, "loss": 1.0})
    folder = collected(tmp_path)
    shutil.rmtree(tmp_path / "sweeps")  # the line needs no file of weights
    assert read_study("finetune", folder).values["top1"]["r18_control"] == {0: 70.0}
    other = replace(converted, source=replace(control, source=None))
    write_run(other, {"top1": 60.0, "loss": 1.0})
    write_run(replace(control, source=None), {"top1": 60.0, "loss": 1.0})
    for name, was in (("r18_control", "not given"), ("r18_converted", "run [0-9a-f]{16}")):
        with pytest.raises(SystemExit):
            collected(tmp_path, "--study", "finetune")
        said = capsys.readouterr().err
        assert re.search(
            f"{name}_seed0 belongs to another experiment: --init-from was {was}, is now run", said
        )
        shutil.rmtree(control.folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("r18_relu", "init_from: r18_relu: expected study_<name>/<cell>"),
        ("study_long/r18", "init_from: study_long/r18: cell is 'r18', expected one of r18_relu,"),
        ("study_num_intervals/relu_N16", "cell is 'relu_N16', expected one of relu_N4,"),  # made elsewhere
        ("study_finetune/r18_pwlu", "study_finetune has an init_from itself"),
    ],
)
def test_a_start_that_is_no_run_of_another_study_is_explained(
    start: str, sentence: str, tmp_path: Path
) -> None:
    shutil.copytree(FOLDER, tmp_path / "sweeps")
    path = tmp_path / "sweeps" / "study_finetune.yaml"
    path.write_text(re.sub("init_from: .*", f"init_from: {start}", path.read_text()))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_study("finetune", tmp_path / "sweeps")


def test_a_reference_that_is_no_cell_is_explained() -> None:
    study = load_study("num_intervals")
    broken = type(study)(**vars(study) | {"reference": "relu_N5"})
    with pytest.raises(ValueError, match="reference is 'relu_N5', expected one of relu_N4"):
        broken.reference_of(study.cells[0])
    broken = type(study)(**vars(study) | {"against": ("prelu",)})
    with pytest.raises(ValueError, match="against is 'relu_prelu', expected one of relu_N4"):
        broken.others_of(study.cells[0])
