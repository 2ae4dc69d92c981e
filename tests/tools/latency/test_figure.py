import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from tests.tools.latency_records import MODELS, RATIOS, RUNTIMES, latency_record
from tools.latency import figure as latency_figure
from tools.latency.figure import PAPER_LABEL, draw_latency
from tools.latency.table import table_4
from tools.paper.numbers import PAPER


def names(panel: Axes) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def diamonds(panel: Axes) -> list[float]:
    return [x for line in panel.lines if line.get_label() == PAPER_LABEL for x in line.get_xdata()]


def test_points_are_ratios_with_percentiles_beside_the_papers() -> None:
    panels = draw_latency(latency_record(), table_4(PAPER)).get_axes()
    assert [panel.get_title() for panel in panels] == [f"{model}\ninference" for model in MODELS]
    assert names(panels[0]) == list(RATIOS) and names(panels[1]) == []  # it shares those of the first
    for panel in panels:
        assert panel.get_xlabel() == "time relative to ReLU"
        assert [container.get_label() for container in panel.containers] == list(RUNTIMES)
        for container in panel.containers:
            assert list(container.lines[0].get_xdata()) == list(RATIOS.values())
            for bar, ratio in zip(container.lines[2][0].get_segments(), RATIOS.values(), strict=True):
                assert bar[:, 0].tolist() == pytest.approx([0.9 * ratio, 1.2 * ratio])
        bottom, top = panel.get_ylim()
        assert bottom > top  # the first row stands at the top
    expected = [17.1, 18.8, 19.9, 23.3, 64.2]
    assert diamonds(panels[0]) == pytest.approx([time / 17.1 for time in expected])
    assert diamonds(panels[1])[-1] == pytest.approx(38.6 / 15.4)


def test_what_the_paper_lacks_has_no_diamonds() -> None:
    record = latency_record(("inference", "training_step"))
    record["inference"] += [row | {"model": "resnet34"} for row in record["inference"][:2]]
    panels = draw_latency(record, table_4(PAPER)).get_axes()
    assert [len(diamonds(panel)) for panel in panels] == [5, 5, 0, 0, 0, 0]
    assert panels[3].get_title() == "resnet18\ntraining step"


def test_command_writes_the_picture_beside_the_record(tmp_path: Path) -> None:
    record = tmp_path / "cpu.json"
    record.write_text(json.dumps(latency_record()))
    latency_figure.main([str(record)])
    assert (tmp_path / "cpu.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cpu.json is missing; make it by `python -m tools.latency --output"),
        ("{", "cpu.json: not JSON"),
        ("[]", "cpu.json: not a record of tools.latency"),
        ('{"benchmark": "latency"}', "cpu.json: a record of tools.latency without 'arguments'"),
    ],
)
def test_other_files_are_refused(
    content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "cpu.json").write_text(content)
    with pytest.raises(SystemExit):
        latency_figure.main([str(tmp_path / "cpu.json")])
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "cpu.png").exists()
