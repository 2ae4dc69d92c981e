import json
import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from tests.tools.numbers_by_hand import numbers_by_hand
from tests.tools.sweep_records import write_run
from tools import collect, table_figures
from tools.paper import SHARED, Place
from tools.sweep_grid import TABLES, load_grid
from tools.table_figures import draw_table, record_of
from tools.table_numbers import Number, TableNumbers, read_table


def ours_of(table: int, base: float = 40.0) -> dict[Place, Number]:
    """A number for every place of a table: base, base + 1, ..., each with a spread of 0.5."""
    places = [place for cell in load_grid(table).cells for place in cell.places]
    return {place: Number(base + index, 0.5) for index, place in enumerate(places)}


def points(panel: Axes) -> dict[float, float]:
    """The drawn points of a panel, all series together: heights by position."""
    found: dict[float, float] = {}
    for container in panel.containers:
        xs, ys = container.lines[0].get_data()
        found |= dict(zip((round(x, 6) for x in xs.tolist()), ys.tolist(), strict=True))
    return found


def bars(panel: Axes) -> list[float]:
    """The lengths of the error bars of a panel; a number without a spread has none."""
    segments = [segment for container in panel.containers for segment in container.lines[2][0].get_segments()]
    return [round(segment[1][1] - segment[0][1], 6) for segment in segments if len(segment)]


def missing(panel: Axes) -> int:
    return [text.get_text() for text in panel.texts].count("missing")


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """The CSV of Table 6 with two seeds of one cell and one of another."""
    for run in load_grid(6).runs("small", tmp_path / "sweeps", seeds=[0, 1]):
        if run.cell.name == "baseline" or run.name == "layer-wise_stat-realign_seed0":
            write_run(run, {"top1": 70.0 + run.seed})
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    return tmp_path


def test_numbers_are_means_over_seeds(collected: Path) -> None:
    numbers = read_table(6, "small", collected)
    baseline = numbers.ours[Place(6, "MobileNet-V3 baseline", SHARED, "top1")]
    assert baseline.mean == 70.5 and baseline.spread == pytest.approx(0.5**0.5)
    assert [run.run for run in baseline.runs] == ["baseline_seed0", "baseline_seed1"]
    single = numbers.ours[Place(6, "PWLU-stat-realign", "layer-wise", "top1")]
    assert (single.mean, single.spread, len(numbers.ours)) == (70.0, None, 2)
    assert len(numbers.paper) == len(numbers.places) == 9
    assert "| PWLU-stat-realign | layer-wise | top-1 (%) | 69.30 | 70.00 | 1 |" in numbers.markdown()


def test_diverged_runs_are_in_no_mean(tmp_path: Path) -> None:
    for run in load_grid(6).runs("small", tmp_path / "sweeps", seeds=[0, 1]):
        if run.cell.name in ("baseline", "layer-wise_stat-realign"):
            diverged = run.seed == 1 or run.cell.name != "baseline"
            write_run(run, {"top1": 70.0}, diverged=diverged)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    numbers = read_table(6, "small", tmp_path)
    ((place, number),) = numbers.ours.items()
    assert place.row == "MobileNet-V3 baseline" and (number.mean, number.spread) == (70.0, None)
    assert [run.run for run in number.runs] == ["baseline_seed0"] and len(numbers.measurements) == 4


@pytest.mark.parametrize("table", TABLES)
def test_a_table_whose_runs_all_diverged_is_drawn(table: int, tmp_path: Path) -> None:
    runs = load_grid(table).runs("small", tmp_path / "sweeps", seeds=[0])
    for run in runs:
        write_run(run, {}, diverged=True)
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    numbers = read_table(table, "small", tmp_path)
    lost = sum(len(run.cell.places) for run in runs)
    caption = draw_table(numbers).get_supxlabel()
    assert caption.endswith(f"n = 0 seeds ({lost} diverged and are missing), so no standard deviation.")
    found = record_of(numbers)["numbers"]
    assert all(one["ours"] is None for one in found) and sum(one["diverged"] for one in found) == lost


def test_two_ways_to_start_beside_a_baseline() -> None:
    numbers = numbers_by_hand(5, ours_of(5))
    del numbers.ours[Place(5, "PWLU-fix-init-6", "channel-wise", "top1")]
    paper, ours = draw_table(numbers).get_axes()
    assert paper.get_title() == "Paper: ImageNet-1k" and paper.get_ylabel() == "top-1 (%)"
    assert ours.get_title() == "Ours, scale small: Imagenette, 128 px"
    assert [label.get_text() for label in ours.get_xticklabels()] == [
        "fix-init-3", "fix-init-6", "fix-init-10", "stat-realign",
    ]  # fmt: skip
    assert points(paper) == {
        -0.12: 71.57, 0.12: 72.27, 0.88: 71.70, 1.12: 71.86,
        1.88: 71.84, 2.12: 72.19, 2.88: 72.22, 3.12: 72.57,
    }  # fmt: skip
    assert len(points(ours)) == 7 and bars(ours) == [1.0] * 7 and bars(paper) == []
    assert missing(ours) == 1 and missing(paper) == 0
    for panel, height in ((paper, 71.34), (ours, 40.0)):
        dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [height]


def test_what_is_missing_is_marked_inside_the_panel() -> None:
    numbers = numbers_by_hand(5, ours_of(5))
    for mode in ("layer-wise", "channel-wise"):
        del numbers.ours[Place(5, "PWLU-stat-realign", mode, "top1")]
    _, ours = draw_table(numbers).get_axes()
    low, high = ours.get_xlim()
    marks = [text.get_position()[0] for text in ours.texts]
    assert len(marks) == 2 and all(low < mark < high for mark in marks)


def test_missing_baseline_is_said() -> None:
    numbers = numbers_by_hand(6, ours_of(6))
    del numbers.ours[Place(6, "MobileNet-V3 baseline", SHARED, "top1")]
    _, ours = draw_table(numbers).get_axes()
    assert [text.get_text() for text in ours.texts] == ["baseline missing"]


def test_detectors_have_boxes_and_masks() -> None:
    numbers = numbers_by_hand(3, ours_of(3))
    for column, metric in (("Mask R-CNN", "bbox_AP"), ("RetinaNet", "bbox_AP")):
        del numbers.ours[Place(3, "PWLU", column, metric)]
    panels = draw_table(numbers).get_axes()
    assert [panel.get_title() for panel in panels[:3]] == [
        "Mask R-CNN, box AP", "Mask R-CNN, mask AP", "RetinaNet, box AP",
    ]  # fmt: skip
    assert panels[0].get_ylabel() == "Paper\nCOCO 2017\nAP (%)"
    assert points(panels[0]) == {0: 39.06, 1: 40.05, 2: 40.25, 3: 40.48}
    assert points(panels[1])[3] == 37.13
    assert points(panels[4])[3] == numbers.ours[Place(3, "PWLU", "Mask R-CNN", "segm_AP")].mean
    assert [missing(panel) for panel in panels] == [0, 0, 0, 1, 0, 1]


def lengths(panels: list[Axes]) -> list[float]:
    return [round(high - low, 6) for low, high in (panel.get_ylim() for panel in panels)]


def test_panels_of_a_row_have_ranges_of_one_length() -> None:
    panels = draw_table(numbers_by_hand(2, ours_of(2))).get_axes()
    assert len(panels) == 10
    assert len(set(lengths(panels[:5]))) == len(set(lengths(panels[5:]))) == 1
    assert lengths(panels[:1]) != lengths(panels[5:6])
    assert all(panel.get_ylim()[1] > max(points(panel).values()) for panel in panels)


def test_ranges_are_shared_only_in_full() -> None:
    panels = draw_table(numbers_by_hand(7, ours_of(7), "full")).get_axes()
    for paper, ours in zip(panels[:3], panels[3:], strict=True):
        assert paper.get_ylim() == pytest.approx(ours.get_ylim())


def test_a_missing_number_of_intervals_breaks_the_line() -> None:
    numbers = numbers_by_hand(7, ours_of(7))
    del numbers.ours[Place(7, "N = 12", "MobileNet-V3", "top1")]
    panels = draw_table(numbers).get_axes()
    assert points(panels[1]) == {4: 68.70, 8: 69.55, 12: 69.20, 16: 69.65, 20: 69.37}
    assert list(points(panels[4])) == [4, 8, 16, 20] and missing(panels[4]) == 1
    line = [line for line in panels[4].lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 5]
    assert [math.isnan(height) for height in line[0].get_ydata()] == [False, False, True, False, False]


def test_a_network_without_any_run_has_an_empty_panel() -> None:
    ours = {place: number for place, number in ours_of(7).items() if place.column == "ResNet-18"}
    panels = draw_table(numbers_by_hand(7, ours, "full")).get_axes()
    assert [missing(panel) for panel in panels] == [0, 0, 0, 0, 5, 5]
    assert sum(panels[1].get_ylim()) / 2 == pytest.approx(
        69.2, abs=0.2
    )  # the empty panel below it has no say
    assert len(panels[4].get_yticks()) == 0


def caption_of(numbers: TableNumbers) -> str:
    return draw_table(numbers).get_supxlabel()


def test_caption_says_what_the_numbers_mean(collected: Path) -> None:
    assert caption_of(numbers_by_hand(7, ours_of(7), "smoke")) == (
        "Ours: a few optimizer steps: the numbers mean nothing.\n"
        "n = 2 seeds, error bars: standard deviation over seeds."
    )
    several = "n = 1 to 2 seeds, error bars and band: standard deviation over seeds, where there are several."
    assert caption_of(read_table(6, "small", collected)).endswith(several)
    path = collected / "small_table6.csv"
    path.write_text("".join(line for line in path.open() if "_seed1" not in line))
    assert caption_of(read_table(6, "small", collected)).endswith("n = 1 seed, so no standard deviation.")


def test_record_names_the_runs() -> None:
    numbers = numbers_by_hand(6, ours_of(6))
    del numbers.ours[Place(6, "PWLU-fix-init-3", "layer-wise", "top1")]
    record = record_of(numbers)
    assert (record["table"], record["scale"], record["dataset"]) == (6, "small", "Imagenette, 128 px")
    first, second = record["numbers"][:2]
    assert (first["row"], first["paper"]) == ("MobileNet-V3 baseline", 67.74)
    assert first["ours"]["mean"] == 40.0 and first["ours"]["runs"][0]["commit"] == "0123456789"
    assert second["row"] == "PWLU-fix-init-3" and second["ours"] is None


def test_command_writes_picture_and_record(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--results", str(collected), "--output", str(collected / "figures")]
    table_figures.main(["--table", "6", "--scale", "small", *folders])
    assert (collected / "figures" / "small_table6.png").stat().st_size > 10_000
    assert json.loads((collected / "figures" / "small_table6.json").read_text())["code"]
    with pytest.raises(SystemExit):
        table_figures.main(["--table", "6", "--scale", "full", *folders])
    assert "table 6 has not been run at scale full" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        table_figures.main(["--help"])
    assert "python -m tools.table_figures --table 5 --scale smoke" in capsys.readouterr().out
