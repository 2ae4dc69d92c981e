import argparse
import os
from pathlib import Path

import pytest

from engine.paths import PathError, written_path
from engine.processes.program import to_path

HOME = os.path.expanduser("~")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/runs/x", f"{HOME}/runs/x"),
        ("~/", f"{HOME}/"),
        ("~root/x", os.path.expanduser("~root/x")),
        ("$SCRATCH/runs", "/scratch/me/runs"),
        ("${SCRATCH}/runs", "/scratch/me/runs"),
        ("runs/a b", "runs/a b"),
        ("runs/a~b", "runs/a~b"),
        ("runs/größe/试验", "runs/größe/试验"),
        ("2024", "2024"),
        ("2024-01-01", "2024-01-01"),
        ("./null", "./null"),
        ("runs/no", "runs/no"),
        ("runs/lr=[1]", "runs/lr=[1]"),
    ],
)
def test_what_a_shell_would_write_out_is_written_out(text: str, path: str) -> None:
    assert written_path(text) == path
    assert to_path(text) == Path(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "~",
        "null",
        "Null",
        "NULL",
        "None",
        "true",
        "False",
        "yes",
        "Off",
        "~nobody_of_this_name/x",
        "runs/~/x",
        "$UNSET/x",
        "${UNSET}/x",
        "$EMPTY/x",
        "$(date)",
        "runs/$",
        "s3://bucket/x",
        "file:///x",
        "C:\\runs\\x",
        "runs\\x",
        "[a, b]",
        "{a: b}",
        '"~/x"',
        "'/runs/x'",
        " runs/x",
        "runs/x\n",
        "runs/x\ny",
        "runs/\0",
        "runs/\udcff",
    ],
)
def test_what_would_become_a_folder_that_nobody_wants_is_refused(text: str) -> None:
    with pytest.raises(PathError) as caught:
        written_path(text)
    assert repr(text) in str(caught.value)
    with pytest.raises(argparse.ArgumentTypeError):
        to_path(text)
