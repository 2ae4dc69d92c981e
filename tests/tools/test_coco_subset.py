import json
import os
from pathlib import Path

import pytest

from engine.coco.data import build_coco_data
from tests.engine.coco.coco_files import annotation_path, write_coco
from tools import coco_subset


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["coco_subset", *map(str, arguments)])
    coco_subset.main()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def test_the_first_images_with_objects_become_a_split(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(annotation_path(root, "train2017").read_text())
    run_main(monkeypatch, "--root", root, "--split", "train2017", "--images", 6, "--name", "few")
    few = json.loads(annotation_path(root, "few").read_text())
    with_objects = {entry["image_id"] for entry in whole["annotations"] if not entry["iscrowd"]}
    expected = [image["id"] for image in whole["images"] if image["id"] in with_objects][:6]
    assert [image["id"] for image in few["images"]] == expected
    kept = {entry["id"] for entry in few["annotations"]}
    assert kept == {entry["id"] for entry in whole["annotations"] if entry["image_id"] in expected}
    assert few["categories"] == whole["categories"]
    for image in few["images"]:
        link = root / "few" / image["file_name"]
        assert not Path(os.readlink(link)).is_absolute()
        assert link.read_bytes() == (root / "train2017" / image["file_name"]).read_bytes()
    sizes = {"shorter_side_px": 32, "longer_side_px": 48}
    data = build_coco_data(
        kind="coco", root=root, train_split="few", val_split="few", **sizes,
        empty_images="drop", with_masks=True, seed=0,
    )  # fmt: skip
    assert (data.num_train, data.num_val) == (6, 6)


def test_what_cannot_be_done_is_explained_and_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.rglob("*"))
    for arguments, sentence in [
        (["--name", "val2017"], "--name is 'val2017', but"),
        (["--name", "few", "--images", "1000"], "--images is 1000; expected 1 to 12"),
        (["--name", "few", "--images", "0"], "--images is 0; expected 1 to 12"),
        (["--name", "few", "--images", "-1"], "--images is -1; expected 1 to 12"),
        (["--name", "few", "--split", "test"], "instances_test.json"),
    ]:
        with pytest.raises(SystemExit):
            run_main(monkeypatch, "--root", root, *arguments)
        assert sentence in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_after_an_early_death_the_same_command_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--root", root, "--split", "train2017", "--images", 3, "--name", "few"]
    with monkeypatch.context() as patch:
        patch.setattr(coco_subset, "write_text_atomically", lambda path, text: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_main(patch, *arguments)
    assert len(list((root / "few").iterdir())) == 3 and not annotation_path(root, "few").exists()
    run_main(monkeypatch, *arguments)
    assert len(json.loads(annotation_path(root, "few").read_text())["images"]) == 3
