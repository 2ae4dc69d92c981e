"""The pictures in results/figures show the numbers that are in results/ now."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.study import figures as study_figures
from tools.study.study import read_study
from tools.tables import improvements
from tools.tables.numbers import read_table
from tools.tables.over_relu import TABLE

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "results" / "figures").glob("*.json"))
NUMBERED = re.compile(r"(full|small|smoke)_(table\d|figure1|figure5|study_(?!iou|shapes|signal).+)")


def shown_now(name: str) -> dict[str, Any]:
    found = NUMBERED.fullmatch(name)
    assert found
    scale, what = found.groups()
    if what.startswith("study_"):
        return study_figures.record_of(read_study(what.removeprefix("study_"), ROOT / "results"))
    return improvements.record_of(int(what[-1]), read_table(TABLE, scale, ROOT / "results"))


@pytest.mark.parametrize(
    "path", [path for path in RECORDS if NUMBERED.fullmatch(path.stem)], ids=lambda p: p.stem
)
def test_a_picture_of_numbers_is_current(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    record = json.loads(path.read_text())
    assert record.pop("code")["commit"]
    assert record == json.loads(json.dumps(shown_now(path.stem)))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_lies_beside_its_picture(path: Path) -> None:
    assert path.with_suffix(".png").exists()
