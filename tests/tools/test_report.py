import json
from pathlib import Path

import pytest

from tests.tools.latency_records import latency_record
from tests.tools.sweep_records import write_run
from tools import collect, report
from tools.paper.grid import load_grid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Table 6 with two seeds of two cells at scale small, and one cell at scale smoke."""
    sweeps = tmp_path / "sweeps"
    for run in load_grid(6).runs("small", sweeps, seeds=[0, 1]):
        if run.cell.name in ("baseline", "layer-wise_stat-realign"):
            write_run(run, {"top1": 70.0 + run.seed})
    write_run(load_grid(6).runs("smoke", sweeps)[0], {"top1": 10.0})
    folder = tmp_path / "results"
    collect.main(["--output", str(sweeps), "--results", str(folder)])
    return folder


def test_the_papers_number_ours_and_the_difference(results: Path) -> None:
    text = report.report(results)
    small = text.split("### Table 6, scale small: Imagenette, 128 px")[1].split("## Scale")[0]
    ours = "| MobileNet-V3 baseline | both | top-1 (%) | 67.74 | 70.50 ± 0.71 | 2 | +2.76 | baseline_seed0 `"
    assert ours in small and small.count("0123456789 2026-02-03") == 4
    realigned = "| PWLU-stat-realign | layer-wise | top-1 (%) | 69.30 | 70.50 ± 0.71 | 2 | +1.20 |"
    assert realigned in small
    assert "| PWLU-fix-init-3 | layer-wise | top-1 (%) | 68.54 | — | 0 | — | — |" in small
    assert "2 of 9 numbers." in small
    assert "| ours | layer-wise, top-1 (%) | channel-wise, top-1 (%) |\n| --- | ---: | ---: |" in small
    assert "| MobileNet-V3 baseline | 70.50 ± 0.71 | 70.50 ± 0.71 |" in small
    assert "| PWLU-stat-realign | 70.50 ± 0.71 | — |" in small
    assert "4 runs on 2 x a GPU: python 3.11.0; torch 2.14.1; timm 1.0." in small


def test_a_diverged_run_is_counted_and_in_no_mean(tmp_path: Path) -> None:
    for run in load_grid(6).runs("small", tmp_path / "sweeps", seeds=[0, 1]):
        if run.cell.name == "baseline":
            write_run(run, {"top1": 70.0}, diverged=run.seed == 1)
        if run.cell.name == "layer-wise_stat-realign":
            write_run(run, {}, diverged=True)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    text = report.report(tmp_path)
    assert "| MobileNet-V3 baseline | both | top-1 (%) | 67.74 | 70.00 (1 diverged) | 1 | +2.26 |" in text
    assert "| PWLU-stat-realign | layer-wise | top-1 (%) | 69.30 | 2 diverged | 0 | — |" in text
    assert "| PWLU-stat-realign | 2 diverged | — |" in text and "1 of 9 numbers." in text


def test_scales_never_share_a_table(results: Path) -> None:
    text = report.report(results)
    smoke = text.split("### Table 6, scale smoke: 128 handwritten digits, 24 px")[1].split("##")[0]
    assert "| 67.74 | 10.00 | 1 | -57.74 |" in smoke and "70.50" not in smoke
    assert "**Ours: a few optimizer steps: the numbers mean nothing.**" in text
    (results / "full_table6.csv").write_text((results / "small_table6.csv").read_text())
    with pytest.raises(ValueError, match="baseline_seed0 is no run of this table at scale full"):
        report.report(results)


def test_what_was_not_run_is_named(results: Path) -> None:
    text = report.report(results)
    assert "- Table 2, scale full: —" in text and "- Table 6, scale small" not in text


def test_a_stale_file_fails_the_check(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--results", str(results)]
    with pytest.raises(SystemExit, match="README.md is not what the records beside it give: run python -m"):
        report.main([*arguments, "--check"])
    assert not (results / "README.md").exists()
    report.main(arguments)
    report.main([*arguments, "--check"])
    assert "README.md: current" in capsys.readouterr().out
    path = results / "small_table6.csv"
    path.write_text(path.read_text().replace(",70.0,", ",70.5,"))
    with pytest.raises(SystemExit, match="is not what the records beside it give"):
        report.main([*arguments, "--check"])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (",both,", ",left,", "is no run of this table at scale small"),
        (",70.0,", ",high,", "line 2: not a line of tools.collect"),
        (",0123456789,", ",0123456789,0", "was not run with the configuration that the repository declares"),
        ("config_hash", "hash", "not a line of tools.collect"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    results: Path, old: str, new: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "small_table6.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SystemExit):
        report.main(["--results", str(results)])
    assert sentence in capsys.readouterr().err


def test_the_repositorys_own_file_is_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    report.main(["--check"])
    assert "README.md" in capsys.readouterr().out


def test_table_4_has_a_page_of_its_own_that_goes_stale_too(results: Path) -> None:
    (results / "latency").mkdir()
    (results / "latency" / "gpu.json").write_text(json.dumps(latency_record()))
    report.main(["--results", str(results)])
    page = results / "latency" / "gpu.md"
    assert page.read_text().startswith("<!--") and "| relu | 20.00" in page.read_text()
    text = (results / "README.md").read_text()
    assert "](latency/gpu.md)" in text and "![latency, gpu]" not in text
    page.write_text(page.read_text().replace("20.00", "19.00"))
    with pytest.raises(SystemExit, match="gpu.md is not what the records"):
        report.main(["--results", str(results), "--check"])
    page.with_suffix(".png").touch()
    assert "![latency, gpu](latency/gpu.png)" in report.report(results)


def test_pictures_are_shown_with_their_scale(results: Path) -> None:
    for name in ("smoke_figure1.png", "small_table5.png", "demo_figure7/r18_pwlu_seed0.png", "other.png"):
        path = results / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = report.report(results)
    assert "### Figure 1, scale smoke, improvements over ReLU by activation function\n\n![smoke" in text
    assert "### Table 5, scale small\n\n![small_table5](figures/small_table5.png)" in text
    assert "### Figure 7, scale demo, learned functions: r18_pwlu_seed0" in text
    assert "](figures/demo_figure7/r18_pwlu_seed0.png)" in text and "### other\n" in text


def test_a_record_of_something_else_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "latency").mkdir()
    (results / "latency" / "x.json").write_text("{}")
    with pytest.raises(SystemExit):
        report.main(["--results", str(results)])
    assert "x.json: not a record of tools.latency" in capsys.readouterr().err


MARKED = "Before.\n\n<!-- table: {name} -->\n{table}<!-- end -->\n\nAfter.\n"


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
    page.write_text(page.read_text().replace("99.17", "99.99"))
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


def test_every_table_for_pages_has_its_record() -> None:
    for name, table in report.MARKED_TABLES.items():
        lines = table(ROOT / "results")
        assert lines[0].startswith("| ") and len(lines) > 2, name
