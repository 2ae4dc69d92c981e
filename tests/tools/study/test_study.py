"""The studies: their grids, what is made of their numbers, and the page."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tools.sweep_records import write_run
from tools import collect, report
from tools.paper.grid import GRIDS, STUDIES, Run, load_grid
from tools.paper.numbers import Place, read_paper
from tools.study import figures as study_figures
from tools.study.page import PAGE, recipe, study_lines
from tools.study.study import SCALE, read_study
from tools.sweep import __main__ as sweep
from tools.tables.compare import SHOWN

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
    return load_grid(study).runs(SCALE, output, **options)


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_loads_and_differs_from_the_others_in_the_axis_alone(study: str) -> None:
    runs = runs_of(study, seeds=[0])
    assert len({run.folder for run in runs}) == len({run.name for run in runs}) == len(runs)
    assert all(run.config for run in runs)
    declared = [run.declared for run in runs]
    assert {key for one in declared for key in one if one[key] != declared[0][key]} == AXES[study]
    assert all(one not in declared[:index] for index, one in enumerate(declared))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("data.shrink_px=0", "data.shrink_px=unset makes r18_relu_seed0 another"),
        ("epochs=20", "epochs=20 makes r18_relu"),
    ],
)
def test_what_would_change_the_experiment_is_refused(word: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _ = runs_of("activations", extra=[word])[0].config


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


def write_study(output: Path, study: str, values: dict[str, dict[int, float]]) -> None:
    """Write runs with these values of top-1 by cell and seed."""
    for run in runs_of(study, output, seeds=sorted({seed for one in values.values() for seed in one})):
        value = values.get(run.cell.name, {}).get(run.seed)
        if value is not None:
            write_run(run, {"top1": value})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The study of intervals: N = 16 three points above N = 8, hardly above N = 4; one seed of N = 20."""
    values = {
        "r18_N16": SEEDS,
        "r18_N8": {seed: value - 3 - 0.01 * seed for seed, value in SEEDS.items()},
        "r18_N4": {0: 59.0, 1: 61.5, 2: 62.0},
        "r18_N20": {1: 60.0},
    }
    write_study(tmp_path / "sweeps", "intervals", values)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path), "--study", "intervals"])
    return tmp_path


def test_numbers_are_found_by_cell_and_seed_and_compared_in_pairs(results: Path) -> None:
    study = read_study("intervals", results)
    assert study.values["r18_N16"] == SEEDS and study.values["r18_N12"] == {} and study.seeds == [0, 1, 2]
    found = {one.second.label: one for one in study.comparisons}
    assert list(found) == ["N = 4", "N = 8", "N = 12", "N = 20"]
    assert found["N = 8"].paired.mean == pytest.approx(3.01) and found["N = 8"].verdict == "higher"
    assert found["N = 4"].paired.mean == pytest.approx(1 / 3) and found["N = 4"].verdict == "not told apart"
    assert found["N = 20"].paired.seeds == (1,) and found["N = 20"].verdict == "awaits seeds 0, 2"
    assert found["N = 12"].paired is None and found["N = 12"].verdict == "awaits seeds 0, 1, 2"
    assert found["N = 8"].p_holm == pytest.approx(4 * found["N = 8"].paired.p)  # of four tests, also not made


def test_a_verdict_awaits_the_declared_seeds_however_small_p_is(tmp_path: Path) -> None:
    """Two seeds that agree within 0.01 points; then the third; then one beyond, which is not declared.

    Another comparison is complete from the start: what it is corrected by is no p of an incomplete one.
    """
    write_study(tmp_path / "sweeps", "intervals", {"r18_N4": {0: 60.0, 1: 60.5, 2: 60.0}})
    verdicts, corrected = [], []
    for n8, n16 in (({0: 65.0, 1: 65.01}, [0, 1, 2]), ({2: 64.9}, []), ({3: 50.0}, [3])):
        write_study(tmp_path / "sweeps", "intervals", {"r18_N8": n8, "r18_N16": dict.fromkeys(n16, 62.0)})
        collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
        fewest, eight, *_ = read_study("intervals", tmp_path).comparisons
        assert fewest.second.label == "N = 4" and eight.second.label == "N = 8" and eight.paired.p < 0.05 / 4
        verdicts.append((fewest.verdict, eight.verdict))
        corrected.append((fewest.p_holm / fewest.paired.p, eight.p_holm and eight.p_holm / eight.paired.p))
    assert verdicts == [("higher", "awaits seed 2"), ("higher", "lower"), ("higher", "lower")]
    assert corrected == [(pytest.approx(4), None)] + [(pytest.approx(3), pytest.approx(4))] * 2


def test_what_cannot_be_tested_has_no_verdict(tmp_path: Path) -> None:
    """All differences are equal: a t-test has nothing to go by."""
    same = dict.fromkeys(SEEDS, 60.0)
    write_study(tmp_path / "sweeps", "intervals", {"r18_N16": same, "r18_N8": same})
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    found = read_study("intervals", tmp_path).comparisons[1]
    assert found.paired.p is None and found.verdict == "not tested"


@pytest.fixture
def with_diverged(tmp_path: Path) -> Path:
    """N = 16 in three seeds; of N = 8 one diverged, of N = 4 all, of N = 12 one, and one was not run."""
    values = {"r18_N16": SEEDS, "r18_N8": {0: 50.0, 2: 50.0}, "r18_N12": {0: 50.0}}
    lost = {"r18_N8": [1], "r18_N4": [0, 1, 2], "r18_N12": [1]}
    write_study(tmp_path / "sweeps", "intervals", values)
    for run in runs_of("intervals", tmp_path / "sweeps"):
        if run.seed in lost.get(run.cell.name, []):
            write_run(run, {}, diverged=True)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    return tmp_path


def test_nothing_is_concluded_where_a_run_diverged(with_diverged: Path) -> None:
    study = read_study("intervals", with_diverged)
    assert study.values["r18_N8"] == {0: 50.0, 2: 50.0} and study.diverged["r18_N8"] == {1}
    found = {one.second.label: one for one in study.comparisons}
    assert found["N = 8"].paired.seeds == (0, 2) and found["N = 8"].verdict == "a run of the second diverged"
    assert found["N = 8"].p_holm is None
    assert found["N = 4"].paired is None and found["N = 4"].verdict == "a run of the second diverged"
    assert found["N = 12"].verdict == "awaits seed 2"
    text = "\n".join(study_lines(study, with_diverged))
    assert "| N = 8 | 2 | 50.00 ± 0.00 | 50.00 | diverged | 50.00 |" in text
    assert "| N = 4 | 0 | — | diverged | diverged | diverged |" in text
    assert "| N = 12 | 1 | 50.00 | 50.00 | diverged | — |" in text
    assert "| N = 16 − N = 4 | 0 | — | — | — | — | a run of the second diverged |" in text


def test_the_picture_says_what_diverged(with_diverged: Path) -> None:
    accuracies, differences = study_figures.draw_study(read_study("intervals", with_diverged)).get_axes()
    assert [text.get_text() for text in accuracies.get_yticklabels()] == [
        "N = 4 (3 diverged)",
        "N = 8 (1 diverged)",
        "N = 12 (1 diverged)",
        "N = 16",
        "N = 20",
    ]
    assert [text.get_text() for text in accuracies.texts] == ["diverged", "missing"]
    assert [text.get_text() for text in differences.texts] == [
        "a run of the second diverged",
        "awaits seeds 0, 1, 2",
    ]
    assert [text.get_text() for text in differences.get_yticklabels()] == [
        "N = 16\n− N = 4",
        "N = 16\n− N = 8\n(a run of the second diverged)",
        "N = 16\n− N = 12\n(awaits seed 2)",
        "N = 16\n− N = 20",
    ]


def test_differences_with_a_diverged_run_are_not_concluded_from(tmp_path: Path) -> None:
    write_study(tmp_path / "sweeps", "activations", {"r18_relu": SEEDS, "r18_pwlu": SEEDS})
    write_study(tmp_path / "sweeps", "noise", {"b64_relu": SEEDS, "b64_pwlu": {0: 49.0, 1: 49.0}})
    (run,) = [r for r in runs_of("noise", tmp_path / "sweeps", seeds=[2]) if r.cell.name == "b64_pwlu"]
    write_run(run, {}, diverged=True)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    first = read_study("noise", tmp_path).comparisons[0]
    assert first.first.diverged == {2} and first.verdict == "a run of the first diverged"


def test_differences_can_be_compared(tmp_path: Path) -> None:
    write_study(
        tmp_path / "sweeps", "activations", {"r18_relu": SEEDS, "r18_pwlu": {0: 61.0, 1: 62.0, 2: 63.4}}
    )
    write_study(
        tmp_path / "sweeps", "noise", {"b64_relu": {0: 50.0, 1: 50.5}, "b64_pwlu": {0: 49.0, 1: 49.0}}
    )
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    first = read_study("noise", tmp_path).comparisons[0]
    assert first.first.label == "(PWLU, batches of 64 − ReLU, batches of 64)"
    assert first.first.values == {0: -1.0, 1: -1.5}
    assert first.second.values == pytest.approx({0: 1.0, 1: 1.0, 2: 0.9})
    assert first.paired.mean == pytest.approx(-2.25) and first.paired.seeds == (0, 1)


def test_a_comparison_of_unknown_cells_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    grid = load_grid("intervals")
    broken = dataclasses.replace(grid, comparisons=("r18_N16 over r18_N5",))
    monkeypatch.setattr("tools.study.study.load_grid", lambda _: broken)
    with pytest.raises(
        ValueError, match="'r18_N16 over r18_N5': expected <side> over <side>.*r18_N4, r18_N8"
    ):
        read_study("intervals", tmp_path)


def test_no_two_comparisons_are_of_the_same_runs() -> None:
    pairs = []
    for study in STUDIES:
        grid = load_grid(study)
        runs = {cell.name: cell.runs_in for cell in grid.cells}
        for line in grid.comparisons:
            pairs.append(
                tuple(tuple(runs[name] for name in side.split(" minus ")) for side in line.split(" over "))
            )
    assert len(set(pairs)) == len(pairs)


# Rows and columns of the studies in the paper's tables.
IN_THE_PAPER = {
    "activations": (2, {"F-ReLU": "F-ReLU"}, "ResNet-18"),
    "activations_mbv3": (2, {}, "MobileNet-V3"),
    "activations_effb0": (2, {}, "EfficientNet-B0"),
    "boundaries": (5, {"ReLU": "ResNet-18 baseline"}, None),
    "intervals": (7, {}, "ResNet-18"),
}


@pytest.mark.parametrize("study", IN_THE_PAPER)
def test_in_the_papers_tables_the_first_side_of_every_comparison_is_ahead(study: str) -> None:
    table, names, network = IN_THE_PAPER[study]
    paper, grid = read_paper(), load_grid(study)
    cells = {cell.name: cell for cell in grid.cells}

    def published(name: str) -> float:
        row, column = cells[name].row, network or cells[name].column
        return paper[Place(table, names.get(row, f"PWLU-{row}" if table == 5 else row), column, "top1")].value

    for line in grid.comparisons:
        first, second = line.split(" over ")
        assert published(first) > published(second), line


def test_the_page_says_what_was_asked_measured_and_tested(results: Path) -> None:
    (results / "study").mkdir()
    (results / "study" / "intervals.md").write_text("A few words about it.\n")
    report.main(["--results", str(results)])
    text = (results / PAGE).read_text()
    assert "## Study intervals: how many intervals does a function need?" in text
    assert "| | n | top-1 (%) | seed 0 | seed 1 | seed 2 |" in text
    assert "| N = 16 | 3 | 61.17 ± 1.26 | 60.00 | 61.00 | 62.50 |" in text
    assert "| N = 20 | 1 | 60.00 | — | 60.00 | — |" in text
    assert "| N = 12 | 0 | — | — | — | — |" in text
    assert "| N = 16 − N = 8 | 3 | +3.01 ± 0.01 | +2.99 to +3.03 | < 0.001 | < 0.001 | higher |" in text
    assert "| N = 16 − N = 20 | 1 | +1.00 | — | — | — | awaits seeds 0, 2 |" in text
    assert "| N = 16 − N = 12 | 0 | — | — | — | — | awaits seeds 0, 1, 2 |" in text
    assert "A few words about it." in text and "10 runs, at commit 0123456789." in text
    assert "9469 training images; network resnet18_025; epochs 30; images per batch 256;" in text
    assert (
        f"[Does it hold? The paper's claims on photographs, with seeds]({PAGE})"
        in (results / "README.md").read_text()
    )
    assert "By cell" not in text and "## Study choices" not in text
    report.main(["--results", str(results), "--check"])
    (results / "study" / "intervals.md").write_text("Other words.\n")
    with pytest.raises(SystemExit, match=PAGE):
        report.main(["--results", str(results), "--check"])


def test_the_recipe_names_what_differs_between_cells() -> None:
    assert "By cell: epochs 30, 8; images per batch 256, 64;" in recipe(read_study("noise", Path("nowhere")))


def test_the_picture_has_a_line_per_cell_and_per_comparison(results: Path) -> None:
    study = read_study("intervals", results)
    accuracies, differences = study_figures.draw_study(study).get_axes()
    assert [text.get_text() for text in accuracies.get_yticklabels()] == [
        f"N = {n}" for n in (4, 8, 12, 16, 20)
    ]
    assert accuracies.get_xlabel() == SHOWN["top1"] and len(differences.get_yticklabels()) == 4
    assert [text.get_text() for text in accuracies.texts] == ["missing"]
    seeds = {
        line.get_ydata()[0]: list(line.get_xdata())
        for line in accuracies.get_lines()
        if line.get_marker() == "o"
    }
    assert seeds[3] == list(SEEDS.values()) and seeds[4] == [60.0]  # N = 16, N = 20
    spans = {tuple(line.get_ydata()): list(line.get_xdata()) for line in differences.get_lines()}
    paired = study.comparisons[1].paired
    assert spans[1, 1] == [paired.low, paired.high] and spans[1,] == [paired.mean]
    study_figures.main(["--results", str(results), "--output", str(results / "figures")])
    record = json.loads((results / "figures" / "small_study_intervals.json").read_text())
    assert [one["first_is"] for one in record["comparisons"]] == [one.verdict for one in study.comparisons]
    assert len(record["runs"]) == 10 and record["runs"][0]["config_hash"]


def test_a_shared_run_counts_in_every_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "sweeps", "activations", {"r18_pwlu": SEEDS})
    write_study(tmp_path / "sweeps", "choices", {"r18_decay": {0: 50.0}})
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    assert read_study("choices", tmp_path).values["r18_default"] == SEEDS
    assert not (tmp_path / "small_study_boundaries.csv").exists()  # it has no run of its own
    printed = capsys.readouterr().out
    assert "r18_T-short_seed0, " in printed
    assert "`python -m tools.sweep --study choices --scale small`" in printed
    collect.main(
        [
            "--output",
            str(tmp_path / "sweeps"),
            "--results",
            str(tmp_path),
            "--study",
            "boundaries",
            "--scale",
            "small",
        ]
    )
    assert read_study("boundaries", tmp_path).values["channel-wise_stat-realign"] == SEEDS
    assert "baseline_seed0 = study_activations/r18_relu_seed0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--study", "boundaries", "--scale", "full"], "--scale full: study boundaries has the scales small"),
        (["--study", "boundary"], "study boundary: expected one of activations,"),
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


@pytest.mark.parametrize("grid", GRIDS)
def test_the_largest_scale_comes_first(grid: int | str) -> None:
    assert load_grid(grid).scale(None).name == ("small" if isinstance(grid, str) else "full")


def test_without_numbers_there_is_no_page_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main(["--results", str(tmp_path)])
    assert not (tmp_path / PAGE).exists()
    with pytest.raises(SystemExit):
        study_figures.main(["--results", str(tmp_path)])
    assert f"has no numbers of {', '.join(STUDIES)}; run tools.sweep" in capsys.readouterr().err
