import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.sh"


def run_script(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    return subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has a GPU, and whose tests fail."""
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\ncase "$*" in\n*get_device_name*) echo "Some GPU" ;;\n'
        '*-m\\ pytest*) echo "2 failed"; exit 1 ;;\n*) echo "$*" ;;\nesac\n'
    )
    stub.chmod(0o755)
    return stub


def test_dry_run_prints_the_commands_and_their_limits(python: Path) -> None:
    done = run_script(python, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    programs = (
        "build_info",
        "pytest",
        "operator_gpu",
        "tools.latency",
        "tools.loop_overhead",
        "train_imagenet.py",
        "sanitizer_case",
    )
    assert all(program in line for program, line in zip(programs, lines, strict=True))
    limits = [int(line.split()[1]) for line in lines]
    assert sum(limits) + 5 * len(limits) <= 600


def test_a_step_that_fails_does_not_stop_the_others(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some records"
    done = run_script(python, folder)
    assert done.returncode == 1
    ended = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(ended) == ["build", "tests", "operator", "latency", "loop", "training", "sanitizer"]
    assert f"FAILED, see {folder}/tests.log" in ended["tests"]
    assert [ended[name].split()[-1] for name in ("build", "operator", "latency", "loop", "training")] == [
        "ok"
    ] * 5
    assert (folder / "tests.log").read_text() == "2 failed\n"
    assert f"--output {folder}/operator.json" in (folder / "operator.log").read_text()


def test_without_a_gpu(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "torch finds no usable GPU" >&2\nexit 1\n')
    stub.chmod(0o755)
    done = run_script(stub)
    assert done.returncode == 2 and done.stdout == ""
    assert "torch finds no usable GPU\nerror: no GPU to check" in done.stderr
