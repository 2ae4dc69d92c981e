"""The studies: their grids, what is made of their numbers, and the page."""

from pathlib import Path
from typing import Any

import pytest

from tests.tools.sweep_records import write_run
from tools import collect, report, study_figures
from tools.compare import SHOWN
from tools.study import SCALE, label, read_study
from tools.study_page import PAGE
from tools.sweep_grid import STUDIES, Run, load_grid

# What the cells of a study may differ in.
AXES = {
    "activations": {"activation.name"},
    "activations_mbv3": {"activation.name"},
    "activations_effb0": {"activation.name"},
    "boundaries": {"activation.name", "activation.mode", "activation.bound", "phase1_epochs"},
    "intervals": {"activation.num_intervals"},
    "noise": {
        "activation.name",
        "optimizer.activation_lr_multiplier",
        "epochs",
        "phase1_epochs",
        "global_batch_size",
        "schedule.warmup_epochs",
    },
    "choices": {"optimizer.activation_weight_decay", "optimizer.activation_lr_multiplier", "phase1_epochs"},
}
SEEDS = {0: 60.0, 1: 61.0, 2: 62.5}


def runs_of(study: str, output: Path = Path("runs"), **options: Any) -> list[Run]:
    return load_grid(study).runs(SCALE, output, **options)


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_loads_and_differs_from_the_others_in_the_axis_alone(study: str) -> None:
    runs = runs_of(study, seeds=[0])
    assert len({run.folder for run in runs}) == len({run.name for run in runs}) == len(runs)
    declared = [run.declared for run in runs if run.config]
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
    assert study.values["r18_N16"] == SEEDS and study.values["r18_N12"] == {}
    found = {label(one.second, study): one for one in study.comparisons}
    assert list(found) == ["N = 4", "N = 8", "N = 12", "N = 20"]
    assert found["N = 8"].paired.mean == pytest.approx(3.01) and found["N = 8"].verdict == "higher"
    assert found["N = 4"].paired.mean == pytest.approx(1 / 3) and found["N = 4"].verdict == "not told apart"
    assert found["N = 20"].paired.seeds == (1,) and found["N = 20"].verdict == "not tested"
    assert found["N = 12"].paired is None and found["N = 12"].verdict == "not tested"
    assert found["N = 8"].p_holm == pytest.approx(2 * found["N = 8"].paired.p)  # two tests could be made


def test_the_page_says_what_was_asked_measured_and_tested(results: Path) -> None:
    (results / "study").mkdir()
    (results / "study" / "intervals.md").write_text("A few words about it.\n")
    report.main(["--results", str(results)])
    text = (results / PAGE).read_text()
    assert "## Study intervals: how many intervals does a function need?" in text
    assert "| N = 16 | 3 | 61.17 ± 1.26 | 60.00, 61.00, 62.50 |" in text
    assert "| N = 12 | 0 | — |  |" in text
    assert "| N = 16 − N = 8 | 3 | +3.01 ± 0.01 | +2.99 to +3.03 | 0.000 | 0.000 | higher |" in text
    assert "| N = 16 − N = 20 | 1 | +1.00 | — | — | — | not tested |" in text
    assert "| N = 16 − N = 12 | 0 | — | — | — | — | not tested |" in text
    assert "A few words about it." in text and "10 runs, at commit 0123456789." in text
    assert "9469 training images" in text and "## Study choices" not in text
    report.main(["--results", str(results), "--check"])
    (results / "study" / "intervals.md").write_text("Other words.\n")
    with pytest.raises(SystemExit, match=PAGE):
        report.main(["--results", str(results), "--check"])


def test_the_picture_has_a_line_per_cell_and_per_comparison(results: Path) -> None:
    study = read_study("intervals", results)
    accuracies, differences = study_figures.draw_study(study).get_axes()
    assert [text.get_text() for text in accuracies.get_yticklabels()] == [
        f"N = {n}" for n in (4, 8, 12, 16, 20)
    ]
    assert accuracies.get_xlabel() == SHOWN["top1"] and len(differences.get_yticklabels()) == 4
    assert [text.get_text() for text in accuracies.texts] == ["missing"]
    study_figures.main(["--results", str(results), "--output", str(results / "figures")])
    record = (results / "figures" / "small_study_intervals.json").read_text()
    assert '"first_is": "higher"' in record and "config_hash" in record


def test_a_shared_run_counts_in_every_study(tmp_path: Path) -> None:
    write_study(tmp_path / "sweeps", "activations", {"r18_pwlu": SEEDS})
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    assert read_study("choices", tmp_path).values["r18_default"] == SEEDS
    assert read_study("boundaries", tmp_path).values["channel-wise_stat-realign"] == SEEDS


def test_without_numbers_there_is_no_page_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main(["--results", str(tmp_path)])
    assert not (tmp_path / PAGE).exists()
    with pytest.raises(SystemExit):
        study_figures.main(["--results", str(tmp_path)])
    assert f"has no numbers of {', '.join(STUDIES)}; run tools.sweep" in capsys.readouterr().err
