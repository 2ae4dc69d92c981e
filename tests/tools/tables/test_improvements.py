import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from tests.tools.sweep_records import write_run
from tools import collect
from tools.paper.grid import load_table
from tools.paper.numbers import Place, read_paper
from tools.tables import improvements
from tools.tables.improvements import difference, draw_figure_1, draw_figure_5, paper_and_ours
from tools.tables.markdown import Number, TableNumbers

NETWORKS = ["ResNet-18", "ResNet-50", "MobileNet-V2", "MobileNet-V3", "EfficientNet-B0"]
OTHERS = ["Swish", "PReLU", "APL", "PAU", "F-ReLU", "PWLU"]


def place(row: str, column: str) -> Place:
    return Place(row, column, "top1")


def numbers_of(ours: dict[Place, Number], scale: str = "small") -> TableNumbers:
    grid = load_table(2)
    paper = {place: Number(read_paper()[2][place].value) for place in grid.places}
    return TableNumbers(grid, scale, [], paper, ours)


@pytest.fixture
def numbers() -> TableNumbers:
    """Ours are 60 + their row's number; Swish lacks ResNet-50, and all lack MobileNet-V3's ReLU."""
    values = {
        place(row, column): Number(60.0 + index, 0.3 * (row != "PAU"))
        for index, row in enumerate(["ReLU", *OTHERS])
        for column in NETWORKS
    }
    del values[place("Swish", "ResNet-50")], values[place("ReLU", "MobileNet-V3")]
    return numbers_of(values)


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_difference_by_hand() -> None:
    found = difference(Number(72.0, 0.3, 3), Number(71.0, 0.4, 2))
    assert (found.mean, found.n) == (1.0, 2) and found.spread == pytest.approx(0.5)
    assert difference(Number(72.0, 0.3), Number(71.0)).spread is None
    assert difference(Number(72.0), Number(71.0, 0.4)).spread is None


def test_what_is_missing_is_not_zero(numbers: TableNumbers) -> None:
    paper, ours = paper_and_ours(numbers).values()
    assert list(paper) == list(ours) == OTHERS and list(paper["PWLU"]) == NETWORKS
    assert all(number for networks in paper.values() for number in networks.values())
    assert paper["PWLU"]["ResNet-18"].mean == pytest.approx(72.57 - 71.34)
    missing = [(row, column) for row in OTHERS for column in NETWORKS if ours[row][column] is None]
    assert sorted(missing) == sorted([("Swish", "ResNet-50"), *((row, "MobileNet-V3") for row in OTHERS)])
    assert ours["PAU"]["ResNet-18"].mean == 4.0


def test_figure_1_has_a_strip_per_activation_function(numbers: TableNumbers) -> None:
    paper, ours = draw_figure_1(numbers).get_axes()
    assert [label.get_text() for label in ours.get_xticklabels()] == OTHERS
    points = {container.get_label(): container.lines[0].get_ydata() for container in ours.containers}
    assert "MobileNet-V3" not in points
    assert points["ResNet-18"].tolist() == [1, 2, 3, 4, 5, 6]
    assert points["ResNet-50"].tolist() == [2, 3, 4, 5, 6]
    assert texts(ours) == ["missing"] * 7 and texts(paper) == []


def test_figure_5_has_a_bar_per_activation_function(numbers: TableNumbers) -> None:
    paper, ours = draw_figure_5(numbers).get_axes()
    assert len(paper.patches) == 30 and [label.get_text() for label in ours.get_xticklabels()] == NETWORKS
    heights = [round(bar.get_height(), 9) for bar in ours.patches]
    assert sorted(heights) == sorted([1] * 3 + [2, 3, 4, 5, 6] * 4)
    assert texts(ours) == ["missing"] * 7


def test_ranges_are_shared_only_in_full(numbers: TableNumbers) -> None:
    for scale, same in (("small", False), ("full", True)):
        paper, ours = draw_figure_1(numbers_of(numbers.ours, scale)).get_axes()
        assert (paper.get_ylim() == ours.get_ylim()) is same


def test_command_writes_pictures_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps, results, output = tmp_path / "sweeps", tmp_path / "results", tmp_path / "figures"
    for run in load_table(2).runs("small", sweeps, seeds=[0, 1]):
        if run.cell.name in ("r18_relu", "r18_pwlu"):
            write_run(run, {"top1": 60.0 + 2 * run.seed + (run.cell.name == "r18_pwlu") * (1 + run.seed)})
    collect.main(["--output", str(sweeps), "--results", str(results)])
    improvements.main(["--scale", "small", "--results", str(results), "--output", str(output)])
    written = sorted(path.name for path in output.iterdir())
    assert written == [f"small_figure{number}.{kind}" for number in (1, 5) for kind in ("json", "png")]
    record = json.loads((output / "small_figure1.json").read_text())
    assert record["scale"] == "small" and record["figure"] == 1 and len(record["improvements"]) == 30
    found = {(line["activation"], line["network"]): line for line in record["improvements"]}
    assert found["Swish", "ResNet-18"]["ours"] is None
    pwlu = found["PWLU", "ResNet-18"]
    assert pwlu["paper"]["mean"] == pytest.approx(1.23)
    assert pwlu["ours"] == {"mean": 1.5, "spread": pytest.approx((4.5 + 2) ** 0.5), "n": 2}
    assert "small_figure5.png" in capsys.readouterr().out


def test_what_has_not_been_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        improvements.main(["--scale", "full", "--results", str(tmp_path), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert "has no numbers of table 2 at scale full. Not run yet: `make table-2 SCALE=full" in said
    assert not (tmp_path / "out").exists()
