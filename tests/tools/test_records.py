import argparse
from pathlib import Path

import pytest

from engine.processes.program import errors_told_by
from tools.records import add_record_option, read_json, to_output_folder, tool_parser
from tools.tables import compare


def test_an_output_that_cannot_be_written_is_refused_before_anything_takes_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for text in (tmp_path / "file", tmp_path / "file" / "x", "null", "~", "s3://bucket"):
        with pytest.raises(argparse.ArgumentTypeError):
            to_output_folder(str(text))
    assert to_output_folder(f"{tmp_path}/new/folder") == tmp_path / "new" / "folder"
    assert not (tmp_path / "new").exists()


def test_a_record_needs_a_folder_that_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = tool_parser("x", "Test.")
    add_record_option(parser)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit):
        parser.parse_args(["--output", f"{tmp_path}/file/x.json"])
    assert f"{tmp_path}/file is no folder" in capsys.readouterr().err


def test_what_a_user_can_mend_is_the_parsers_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.json").write_text('{"runs": ')
    calls = [
        (lambda: read_json(tmp_path / "damaged.json", "make it"), "damaged.json: not JSON"),
        (lambda: read_json(tmp_path / "none.json", "make it"), "none.json is missing; make it by `make it`"),
        (lambda: (tmp_path / "none").read_text(), "none: No such file or directory"),
        (lambda: (tmp_path / "damaged.json" / "x").mkdir(), "x: Not a directory"),
    ]
    for call, words in calls:
        with pytest.raises(SystemExit), errors_told_by(argparse.ArgumentParser("tool")):
            call()
        assert words in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(KeyError), errors_told_by(argparse.ArgumentParser("tool")):
        raise KeyError("a crash keeps its traceback")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("manifest.json", "{", "manifest.json: not what a run of this project writes"),
        ("manifest.json", None, "no manifest.json"),
        ("metrics.jsonl", "", "no evaluation in metrics.jsonl"),
        ("metrics.jsonl", None, "metrics.jsonl: No such file"),
    ],
)
def test_a_run_with_damaged_files_is_named(
    tmp_path: Path, name: str, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"FINISHED": "{}", "manifest.json": '{"experiment": {}}', "metrics.jsonl": ""}
    for file, text in (files | {name: content}).items():
        if text is not None:
            (tmp_path / file).write_text(text)
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path), "--output", str(tmp_path / "record.json")])
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "record.json").exists()
