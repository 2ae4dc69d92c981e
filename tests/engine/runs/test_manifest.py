import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.records import console
from engine.runs.manifest import describe_code, describe_package, describe_start


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    """Commit everything in a repository, made if there is none; return the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(console, "_warned", set())
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("PWLU_COMMIT", raising=False)


def test_code_is_named_by_commit_and_whether_it_was_changed(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.py").write_text("1")
    commit = commit_all(tmp_path)
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.csv").write_text("written by a program")
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    for changed in ("a.py", "new.py", "results/paper.csv"):  # the paper's numbers are code
        (tmp_path / changed).write_text("2")
        assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": True}
        commit = commit_all(tmp_path)
        assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("tracked", [True, False])
def test_the_repository_that_a_copy_lies_in_has_other_commits(
    tmp_path: Path, tracked: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    copy = tmp_path / "third_party" / "pwlu"
    commit_all(tmp_path)
    copy.mkdir(parents=True)
    (copy / "train_imagenet.py").write_text("1")
    foreign = commit_all(tmp_path) if tracked else git(tmp_path, "rev-parse", "HEAD")
    for _ in range(2):  # the second time without a word
        assert describe_code(copy) == {"commit": None, "uncommitted_changes": None}
    (warning,) = capsys.readouterr().out.splitlines()
    assert f"lies in that of {tmp_path}" in warning and "PWLU_COMMIT" in warning and foreign not in warning
    monkeypatch.setenv("PWLU_COMMIT", "0123abcd")
    assert describe_code(copy) == {"commit": "0123abcd", "uncommitted_changes": None}


def no_repository(root: Path) -> None:
    pass


def no_commit(root: Path) -> None:
    git(root, "init", "--quiet")


def damaged(root: Path) -> None:
    commit_all(root)
    (root / ".git" / "HEAD").write_text("")


def bare(root: Path) -> None:
    git(root, "init", "--quiet", "--bare")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (no_repository, "not a git repository"),
        (no_commit, "does not have any commits yet"),
        (damaged, "not a git repository"),
        (bare, "must be run in a work tree"),
    ],
)
def test_a_missing_commit_is_a_warning_with_gits_sentence(
    tmp_path: Path, make: Callable[[Path], None], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make(tmp_path)
    assert describe_code(tmp_path) == {"commit": None, "uncommitted_changes": None}
    (warning,) = capsys.readouterr().out.splitlines()
    assert sentence in warning and "PWLU_COMMIT" in warning
    monkeypatch.setenv("PWLU_COMMIT", "0123")
    assert describe_code(tmp_path) == {"commit": "0123", "uncommitted_changes": None}
    assert capsys.readouterr().out == ""


def test_where_git_refuses_the_owner_its_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    commit = commit_all(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert describe_code(tmp_path)["commit"] is None
    assert "git config --global --add safe.directory" in capsys.readouterr().out
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": str(tmp_path)}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    commit_all(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert describe_code(tmp_path) == {"commit": None, "uncommitted_changes": None}
    assert "git cannot be run" in capsys.readouterr().out


def test_a_damaged_index_costs_the_status_alone(tmp_path: Path, capsys: Any) -> None:
    commit = commit_all(tmp_path)
    (tmp_path / ".git" / "index").write_bytes(b"x" * 100)
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": None}
    assert "is not recorded: git says: " in capsys.readouterr().out


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_INDEX_FILE"])
def test_a_hook_of_another_repository_is_no_matter(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    for folder in (own, foreign):
        folder.mkdir()
        (folder / f"{folder.name}.py").write_text("1")
        commit_all(folder)
    commit = git(own, "rev-parse", "HEAD")
    monkeypatch.setenv(variable, str(foreign / ".git" / ("index" if "INDEX" in variable else "")))
    assert describe_code(own) == {"commit": commit, "uncommitted_changes": False}


def test_worktrees_submodules_shallow_clones_and_links_are_repositories(tmp_path: Path) -> None:
    origin, outer = tmp_path / "origin", tmp_path / "outer"
    for folder in (origin, outer):
        folder.mkdir()
        commit_all(folder)
    commit = commit_all(origin)
    places = [outer / "sub", tmp_path / "worktree", tmp_path / "shallow", tmp_path / "link"]
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), "sub")
    git(origin, "worktree", "add", "--quiet", "--detach", str(places[1]))
    git(tmp_path, "clone", "--quiet", "--depth=1", origin.as_uri(), str(places[2]))
    places[3].symlink_to(origin)
    for place in places:
        assert describe_code(place) == {"commit": commit, "uncommitted_changes": False}


@pytest.mark.parametrize("named", ["main", "v0.4-dirty", "$(git rev-parse HEAD)", "abc", "unknown"])
def test_what_is_no_commit_is_left_out_with_a_warning(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    commit = commit_all(tmp_path)
    monkeypatch.setenv("PWLU_COMMIT", named)
    assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    assert f"PWLU_COMMIT is {named.lower()!r}" in capsys.readouterr().out


def test_the_named_commit_wins_over_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    commit = commit_all(tmp_path)
    for same in ("", " ", commit, commit[:7], commit.upper()):
        monkeypatch.setenv("PWLU_COMMIT", same)
        assert describe_code(tmp_path) == {"commit": commit, "uncommitted_changes": False}
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("PWLU_COMMIT", "0123abcd")
    assert describe_code(tmp_path) == {"commit": "0123abcd", "uncommitted_changes": None}
    warning = capsys.readouterr().out
    assert "0123abcd" in warning and commit in warning


def test_a_package_is_named_by_its_commit_where_it_is_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PWLU_COMMIT", "0123abcd")  # of our code, not of theirs
    for name in ("cloned_package", "copied_package", "broken_package"):
        package = tmp_path / name / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("__version__ = '1.2'")
        monkeypatch.syspath_prepend(str(package.parent))
    commit = commit_all(tmp_path / "cloned_package")
    (tmp_path / "broken_package" / ".git").mkdir()
    commit_all(tmp_path)
    known = {"version": "1.2", "commit": commit, "uncommitted_changes": False}
    assert describe_package("cloned_package") == {"name": "cloned_package", **known}
    assert describe_package("copied_package") == {"name": "copied_package", "version": "1.2"}
    assert capsys.readouterr().out == ""
    assert describe_package("broken_package")["commit"] is None
    assert "no commit of broken_package is recorded" in capsys.readouterr().out


def test_a_start_says_what_it_ran_on_but_not_where() -> None:
    start = describe_start(step=5, world_size=2, device=torch.device("cpu"), components={"engine": "x"})
    assert json.loads(json.dumps(start)) == start
    assert start["step"] == 5 and start["world_size"] == 2
    assert start["packages"]["torch"] == torch.__version__.split("+")[0]
    assert start["packages"]["timm"] and start["packages"]["pwlu-cuda"]
    assert start["pwlu"]["version"] == start["packages"]["pwlu-cuda"]
    assert start["hardware"]["device"] == "cpu" and start["hardware"]["cpu"]
    assert socket.gethostname() not in json.dumps(start["hardware"])
