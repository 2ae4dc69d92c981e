import json
import re
from pathlib import Path

import pytest

from engine.data.decoding import DECODERS
from tests.engine.image_files import write_folder
from tools import data_speed

SMALL = "--images 10 --image-size 16 --batch-size 4 --rounds 2"


def run(monkeypatch: pytest.MonkeyPatch, root: Path, output: Path, arguments: str = "") -> None:
    words = ["data_speed", str(root), "--output", str(output), *SMALL.split(), *arguments.split()]
    monkeypatch.setattr("sys.argv", words)
    data_speed.main()


def test_record_and_page_have_every_decoder_and_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "speed.json"
    run(monkeypatch, write_folder(tmp_path / "data"), output, "--gpus 2 --images-per-second resnet18=1e3")
    record = json.loads(output.read_text())
    expected = {(decoder, transform) for decoder in DECODERS for transform in data_speed.TRANSFORMS}
    expected |= {(data_speed.TIMM, transform) for transform in ("standard", "evaluation")}
    assert {(row["decoder"], row["transform"]) for row in record["speeds"]} == expected
    assert record["environment"]["decoders"].keys() == {*DECODERS, "timm"} and record["images"] == 10
    for row in record["speeds"]:
        assert row["images_per_core_second"] > 0 and min(row["milliseconds"].values()) > 0
    page = output.with_suffix(".md").read_text()
    assert page in capsys.readouterr().out and page.count("\n| pillow |") == 4
    assert "## Cores that keep 2 GPUs busy" in page and "\n| resnet18 | standard | 1000 |" in page


def test_cores_are_those_that_read_as_many_images_as_the_gpus_take() -> None:
    speeds = [
        {"decoder": name, "transform": "standard", "images_per_core_second": speed}
        for name, speed in (("pillow", 300.0), ("simplejpeg", 600.0))
    ]
    networks = [
        {"name": "resnet18", "augmentation": "standard", "images_per_gpu_second": 1000.0},
        {"name": "resnet50", "augmentation": "standard", "images_per_gpu_second": None},
    ]
    record = {"arguments": {"gpus": 3}, "speeds": speeds, "networks": networks}
    assert data_speed.cores_section(record)[-1] == "| resnet18 | standard | 1000 | 5 | 10 |"
    assert data_speed.cores_section({**record, "networks": networks[1:]}) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--images-per-second resnet19=3000", "resnet19 is no network of configs/; expected .*resnet18"),
        ("--images-per-second resnet18", "expected NAME=RATE"),
        ("--images-per-second resnet18=-1", "expected NAME=RATE"),
    ],
)
def test_a_wrong_rate_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    sentence: str,
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, write_folder(tmp_path / "data"), tmp_path / "speed.json", arguments)
    assert re.search(sentence, capsys.readouterr().err)


def test_a_folder_without_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, tmp_path / "speed.json")
    assert "expected train/<class>/*.jpg" in capsys.readouterr().err
