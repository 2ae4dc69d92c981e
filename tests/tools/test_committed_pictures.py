"""The pictures in results/figures show the numbers that are in results/tables now."""

import json
from pathlib import Path

import pytest

from tools.study import figures
from tools.study.study import read_study

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "results" / "figures").rglob("*.json"))
STUDIES = sorted(path.stem for path in (ROOT / "results" / "tables").glob("small_study_*.csv"))


@pytest.mark.parametrize("name", STUDIES)
def test_the_picture_of_a_study_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    record = json.loads((ROOT / "results" / "figures" / f"{name}.json").read_text())
    assert record.pop("code")["commit"]
    now = figures.record_of(read_study(name.removeprefix("small_study_"), ROOT / "results"))
    assert record == json.loads(json.dumps(now))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_lies_beside_its_picture(path: Path) -> None:
    assert path.with_suffix(".png").exists()
