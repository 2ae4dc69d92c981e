import json
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from engine.runs.manifest import describe_code, describe_start


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_is_named_by_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert describe_code(tmp_path) == {"commit": None, "uncommitted_changes": None}
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    for folder in ("results", "engine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "results" / "table.csv").write_text("written by a program")
    assert describe_code(tmp_path / "engine") == {"commit": commit, "uncommitted_changes": False}
    for changed in ("a.py", "results/paper.csv"):  # the paper's numbers are code
        (tmp_path / changed).write_text("2")
        assert describe_code(tmp_path / "engine") == {"commit": commit, "uncommitted_changes": True}
        git(tmp_path, "add", changed)
        git(tmp_path, "commit", "--quiet", "--message", changed)
        commit = git(tmp_path, "rev-parse", "HEAD")
        assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}


def test_code_outside_any_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_code(tmp_path) == {"commit": None, "uncommitted_changes": None}
    monkeypatch.setenv("PWLU_COMMIT", "0123")  # a copy can be told its commit
    monkeypatch.setenv("PATH", "")  # no git at all
    assert describe_code(tmp_path) == {"commit": "0123", "uncommitted_changes": None}


def test_a_start_says_what_it_ran_on_but_not_where() -> None:
    start = describe_start(step=5, world_size=2, device=torch.device("cpu"), components={"engine": "x"})
    assert json.loads(json.dumps(start)) == start
    assert start["step"] == 5 and start["world_size"] == 2
    assert start["packages"]["torch"] == torch.__version__.split("+")[0]
    assert start["packages"]["timm"] and start["packages"]["pwlu-cuda"]
    assert start["pwlu"]["version"] == start["packages"]["pwlu-cuda"]
    assert start["hardware"]["device"] == "cpu" and start["hardware"]["cpu"]
    assert socket.gethostname() not in json.dumps(start["hardware"])
