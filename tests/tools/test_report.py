import json
from pathlib import Path

import pytest

from tests.tools.latency_records import latency_record
from tests.tools.sweep_records import write_run
from tools import collect, report
from tools.paper.grid import load_table
from tools.tables.measurements import read_measurements

ROOT = Path(__file__).parents[2]
MARKED = "Before.\n\n<!-- table: {name} -->\n{table}<!-- end -->\n\nAfter.\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Table 6, scale small: two seeds of a cell, one of another whose other diverged, none of a third."""
    sweeps, folder = tmp_path / "sweeps", tmp_path / "results"
    diverged = {("layer-wise_stat-realign", 1), ("layer-wise_fix-init-6", 0), ("layer-wise_fix-init-6", 1)}
    for run in load_table(6).runs("small", sweeps, seeds=[0, 1]):
        if run.cell.name in ("baseline", "layer-wise_stat-realign", "layer-wise_fix-init-6"):
            write_run(run, {"top1": 70.0 + run.seed}, diverged=(run.cell.name, run.seed) in diverged)
    collect.main(["--output", str(sweeps), "--results", str(folder)])
    return folder


def page_of(results: Path) -> str:
    report.main(["--results", str(results)])
    return (results / "README.md").read_text()


def test_the_papers_numbers_and_ours_stand_side_by_side(results: Path) -> None:
    small = page_of(results).split("## Table 6")[1].split("### Scale small")[1].split("##")[0]
    assert "| top-1 (%) | layer-wise: paper | ours | channel-wise: paper | ours |" in small
    ours = "70.50 ± 0.71 (n = 2)"
    assert f"| MobileNet-V3 baseline | 67.74 | {ours} | 67.74 | {ours} |" in small
    assert "| PWLU-stat-realign | 69.30 | 70.00 (n = 1, 1 diverged) | 69.65 |  |" in small
    assert "| PWLU-fix-init-6 | 68.48 | 2 diverged | 68.88 |  |" in small
    assert "2 of 9 numbers; every run with its commit: tables/small_table6.csv." in small
    assert "6 runs on 2 x a GPU: python 3.11.0; torch 2.14.1; timm 1.0." in small


def test_what_was_not_run_has_the_command_that_fills_it(results: Path) -> None:
    text = page_of(results)
    full = text.split("## Table 6")[1].split("### Scale small")[0]
    assert "| PWLU-stat-realign | 69.30 |  | 69.65 |  |" in full
    assert 'Not run yet: `make table-6 SCALE=full SWEEP="data.root=/datasets/imagenet"`.' in full
    assert "| PWLU | 40.48 |  | 37.13 |  | 38.31 |  |" in text and "`make table-4`" in text
    assert "| PWLU | 72.57 |  | 77.78 |  | 74.69 |  | 69.65 |  | 78.22 |  |" in text


def test_a_stale_file_fails_the_check(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--results", str(results)]
    with pytest.raises(SystemExit, match="README.md is not what the records beside it give: run python -m"):
        report.main([*arguments, "--check"])
    assert not (results / "README.md").exists()
    report.main(arguments)
    report.main([*arguments, "--check"])
    assert "README.md: current" in capsys.readouterr().out
    path = results / "tables" / "small_table6.csv"
    path.write_text(path.read_text().replace(",70.0,", ",70.5,"))
    with pytest.raises(SystemExit, match="is not what the records beside it give"):
        report.main([*arguments, "--check"])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (",both,", ",left,", "is no run of this table at scale small"),
        (",small,", ",full,", "is no run of this table at scale small"),
        ("\n6,", "\n5,", "is no run of this table at scale small"),
        (",70.0,", ",high,", "line 2: not a line of tools.collect"),
        (",0123456789,", ",0123456789,0", "was not run with the configuration that the repository declares"),
        ("config_hash", "hash", "not a line of tools.collect"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(results: Path, old: str, new: str, sentence: str) -> None:
    path = results / "tables" / "small_table6.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=sentence):
        read_measurements(results, "small", load_table(6))


def test_the_repositorys_own_pages_are_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    report.main(["--check"])
    assert "README.md" in capsys.readouterr().out


def test_table_4_has_a_page_of_its_own_that_goes_stale_too(results: Path) -> None:
    (results / "latency").mkdir()
    (results / "latency" / "gpu.json").write_text(json.dumps(latency_record()))
    text = page_of(results)
    page = results / "latency" / "gpu.md"
    assert page.read_text().startswith("<!--") and "| relu | 20.00" in page.read_text()
    assert "](latency/gpu.md)" in text and "| resnet18, pwlu | 1.20 | 1.20 | 1.16 |" in text
    page.write_text(page.read_text().replace("20.00", "19.00"))
    with pytest.raises(SystemExit, match="latency/gpu.md is not what the records"):
        report.main(["--results", str(results), "--check"])


def test_a_record_of_something_else_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "latency").mkdir()
    (results / "latency" / "x.json").write_text("{}")
    with pytest.raises(SystemExit):
        report.main(["--results", str(results)])
    assert "x.json: not a record of tools.latency" in capsys.readouterr().err


def test_pictures_are_shown_with_their_scale(results: Path) -> None:
    for name in ("full_figure1.png", "demo_figure7/r18_pwlu_seed0.png", "other.png", "small_study_noise.png"):
        path = results / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = page_of(results)
    assert "### Figure 1, scale full, " in text and "](figures/full_figure1.png)" in text
    assert "### Figure 7, scale demo, learned functions: r18_pwlu_seed0" in text
    assert "](figures/demo_figure7/r18_pwlu_seed0.png)" in text and "### other\n" in text
    assert "small_study_noise" not in text


def test_a_page_gets_the_table_that_its_markers_name(results: Path) -> None:
    (results / "demo").mkdir()
    record = ROOT / "results" / "demo" / "digits_r18_pwlu.json"
    (results / "demo" / record.name).write_text(record.read_text())
    page = results.parent / "docs" / "more" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text(MARKED.format(name="demo", table="| old |\n"))
    arguments = ["--results", str(results)]
    report.main(arguments)
    assert page.read_text().startswith("Before.\n\n<!-- table: demo -->\n\n| activation | n | top-1 (%) |\n")
    assert page.read_text().endswith("\n<!-- end -->\n\nAfter.\n") and "| old |" not in page.read_text()
    report.main([*arguments, "--check"])
    page.write_text(page.read_text().replace("| pwlu |", "| relu |"))
    with pytest.raises(SystemExit, match=r"page\.md is not what the records beside it give"):
        report.main([*arguments, "--check"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (MARKED.format(name="dem", table=""), "table is 'dem', expected one of demo, "),
        (MARKED.format(name="demo", table=""), "digits_r18_pwlu.json is missing; make it by `make demo`"),
        ("<!-- table: demo -->\n", "needs a line <!-- end --> after it"),
    ],
)
def test_a_wrong_marker_is_explained(tmp_path: Path, text: str, sentence: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        report.fill_markers(page, tmp_path / "results")


@pytest.mark.parametrize("name", report.MARKED_TABLES)
def test_every_table_for_pages_has_its_record(name: str) -> None:
    lines = report.MARKED_TABLES[name](ROOT / "results")
    assert lines[0].startswith("| ") and lines[1].startswith("| --- |") and lines[2].startswith("| ")
