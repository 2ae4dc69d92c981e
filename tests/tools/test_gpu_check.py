import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.manifest import describe_code
from tools import gpu_check, gpu_results, gpu_run, latency
from tools.gpu_steps import ROOT, Step, all_steps, gpu_test_files

COMMON = {"read": gpu_results.nothing}


def step(name: str, code: str, **more: Any) -> Step:
    """A step of Python that runs here as it would on a GPU."""
    command = (sys.executable, "-c", code)
    return Step(name, more.pop("limit_s", 60), command, command, **{**COMMON, **more})


def check(
    monkeypatch: pytest.MonkeyPatch, output: Path, steps: list[Step], *arguments: str
) -> tuple[int, Any]:
    """The exit code and the record of a dry run of these steps, at a commit that need not be found."""
    monkeypatch.setenv("PWLU_COMMIT", "0123abc")
    monkeypatch.setattr(gpu_check, "all_steps", lambda architecture: tuple(steps))
    code = gpu_check.main(["--dry-run", "--output", str(output), *arguments])
    return code, json.loads(output.read_text()) if output.exists() else None


def test_script_runs_a_step_and_writes_record_and_page(tmp_path: Path) -> None:
    output = tmp_path / "new" / "gpu.json"
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise SystemExit('not these tools')")
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--dry-run", "--output", "new/gpu.json"]
    done = subprocess.run(
        [*command, "--steps", "build_info", "--commit", "0123abc"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": os.path.relpath(sys.executable, tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(output.read_text())
    assert record["dry_run"] and record["commit"] == "0123abc" and record["gpu"] == {}
    (only,) = record["steps"]
    assert (only["name"], only["status"], only["reason"]) == ("build_info", "passed", "no GPU")
    assert only["result"]["cuda_status"] and str(tmp_path) not in json.dumps(only["command"])
    assert "DRY RUN" in output.with_suffix(".md").read_text()


def test_a_failing_step_is_told_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = [
        step("broken", "print('what went wrong'); raise SystemExit(3)"),
        step("slow", "import time; time.sleep(60)", limit_s=1),
        step("none", "", program="compute-sanitizer"),
        step("good", "print('done')"),
        Step("gpu_only", 60, ("true",), None, gpu_results.nothing),
    ]
    code, record = check(monkeypatch, tmp_path / "gpu.json", steps)
    assert code == 1
    outcomes = {s["name"]: (s["status"], s["bad"]) for s in record["steps"]}
    assert outcomes == {
        "broken": ("failed", True),
        "slow": ("timed out", True),
        "none": ("passed", False),
        "good": ("passed", False),
        "gpu_only": ("not run", False),
    }
    broken, slow, *_ = record["steps"]
    assert broken["reason"] == "exit code 3" and broken["output_tail"] == "what went wrong\n"
    assert slow["reason"] == "ended after 1 s" and 1 <= slow["seconds"] < 30
    assert "not passed: broken, slow" in capfd.readouterr().out
    page = (tmp_path / "gpu.md").read_text()
    assert "| broken | failed | exit code 3 |" in page and "| gpu_only | not run | no GPU |" in page


def test_a_broken_build_stops_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise another pwlu, which happens to be installed, would be measured."""
    steps = [step("build", "raise SystemExit(1)"), step("next", "")]
    code, record = check(monkeypatch, tmp_path / "gpu.json", steps)
    assert code == 1 and record["steps"][1]["reason"] == "pwlu was not built"


def test_no_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, record = check(monkeypatch, tmp_path / "gpu.json", [step("late", "")], "--seconds", "4")
    assert code == 1 and record["steps"][0]["reason"] == "no time was left"


def test_missing_packages_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [step("good", ""), step("needy", "", modules=("yaml", "no_such_module", "nor_this_one"))]
    code, record = check(monkeypatch, tmp_path / "gpu.json", steps)
    assert code == 2 and record is None
    error = capsys.readouterr().err
    assert "error: missing here: no_such_module, nor_this_one (for needy). Install it" in error
    code, record = check(monkeypatch, tmp_path / "gpu.json", steps, "--skip-missing")
    assert code == 0
    assert [s["status"] for s in record["steps"]] == ["passed", "not run"]
    assert record["steps"][1]["reason"] == "missing: no_such_module, nor_this_one"


def test_a_missing_sanitizer_is_named_and_no_dry_run_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [step("good", ""), step("memcheck", "", program="compute-sanitizer")]
    monkeypatch.setattr(gpu_check, "find_program", lambda name: None)
    monkeypatch.setattr(gpu_run, "find_program", lambda name: None)
    assert gpu_check.missing(steps, dry_run=True) == {}
    monkeypatch.setattr(gpu_check, "all_steps", lambda architecture: tuple(steps))
    gpu = {"name": "Some", "compute_capability": "9.0", "torch_cuda": "13.0"}
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: gpu)
    command = ["--output", str(tmp_path / "gpu.json"), "--commit", "0123abc"]
    assert gpu_check.main(command) == 2
    assert "missing here: compute-sanitizer (for memcheck)." in capsys.readouterr().err
    assert gpu_check.main([*command, "--skip-missing"]) == 0
    assert capsys.readouterr().out.endswith("\nall that ran is well; not run: memcheck\n")


def test_too_old_a_setuptools_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = gpu_check.build_requirements()["setuptools"]
    monkeypatch.setattr("importlib.metadata.version", lambda name: oldest + ".0")
    assert gpu_check.absent_package("setuptools") == ""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9.post1")
    assert gpu_check.absent_package("setuptools") == f"setuptools>={oldest} (9.9.post1 is installed)"
    assert gpu_check.absent_package("pip") == ""


def test_output_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = check(monkeypatch, tmp_path / "gpu.md", [step("good", "")])
    assert code == 2 and record is None
    assert "gpu.md; expected a name that ends in .json" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert gpu_check.main(["--dry-run", "--output", str(tmp_path / "file" / "gpu.json")]) == 2
    assert "its folder cannot be made" in capsys.readouterr().err


def test_commit_of_this_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PWLU_COMMIT", raising=False)
    code = describe_code(ROOT)
    expected = f"{code['commit']}{'+changes' if code['uncommitted_changes'] else ''}"
    assert gpu_run.commit_here(tmp_path) == (expected if code["commit"] else None)
    monkeypatch.setattr(gpu_check, "commit_here", lambda folder: "0123abc+changes")
    monkeypatch.setattr(gpu_check, "all_steps", lambda architecture: (step("good", ""),))
    output = tmp_path / "gpu.json"
    assert gpu_check.main(["--dry-run", "--output", str(output)]) == 0
    assert json.loads(output.read_text())["commit"] == "0123abc+changes"
    assert "commit 0123abc+changes, " in output.with_suffix(".md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    assert "error: torch finds no usable GPU; --dry-run does what a CPU can do" in capsys.readouterr().err


def test_record_is_named_after_the_gpu() -> None:
    path = gpu_check.default_output({"name": "NVIDIA H200"})
    assert path.relative_to(ROOT).as_posix() == "results/gpu/nvidia_h200.json"


def test_commands_for_a_gpu_are_what_the_programs_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run nowhere without one: but the files exist, and the parser of tools.latency takes them."""
    steps = {s.name: s for s in all_steps("9.0")}
    assert list(steps)[:3] == ["build", "build_info", "tests_extension"]
    for name in ("training_step", "table4", "table4_compiled"):
        arguments = steps[name].command[3:]
        parsed = latency.parser().parse_args(arguments)
        assert parsed.device == "cuda" and parsed.output.name == f"{name}.json"
        assert parsed.activations[0] == "relu" and "pwlu" in parsed.activations
        latency.check(latency.parser().parse_args([*arguments, "--device", "cpu", "--output", "/tmp/x.json"]))
    for name in ("operator", "memcheck"):
        program = next(part for part in steps[name].command if part.endswith(".py"))
        assert (ROOT / program).exists()
    assert steps["build"].environment == {"PWLU_BUILD_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    assert "tests/tools/test_latency.py" in list(gpu_test_files())


def test_a_file_that_cannot_be_read_fails_its_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(folder: Path, output: str, dry_run: bool) -> gpu_results.Result:
        return {}, json.loads("[1]")["key"]

    half = "import sys; open('{folder}/half.xml', 'w').write('<testsuites><testsu')"
    steps = [
        step("half", half, read=gpu_results.junit("half")),
        step("wrong", "", read=wrong),
        step("good", ""),
    ]
    code, record = check(monkeypatch, tmp_path / "gpu.json", steps)
    assert code == 1 and [s["status"] for s in record["steps"]] == ["failed", "failed", "passed"]
    assert "what it left cannot be read: ValueError('half.xml is no XML" in record["steps"][0]["reason"]
    assert "TypeError" in record["steps"][1]["reason"]


def test_a_tool_that_is_not_there_or_refuses_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(found: str | None) -> gpu_run.Outcome:
        watched = step("memcheck", "", program="compute-sanitizer", read=gpu_results.sanitizer)
        monkeypatch.setattr(gpu_run, "find_program", lambda name: found)
        return gpu_run.run_step(watched, tmp_path, 60, False, "")

    missing = run(None)
    assert (missing.status, missing.bad, missing.reason) == (
        "not run",
        False,
        "compute-sanitizer was not found",
    )
    refusing = tmp_path / "refusing"
    refusing.write_text("#!/bin/sh\necho '========= Error: Device not supported'\nexit 1\n")
    refusing.chmod(0o755)
    refused = run(str(refusing))
    assert (refused.status, refused.bad) == ("not run", False)
    assert refused.reason == "compute-sanitizer cannot work here: Error: Device not supported"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        gpu_check.main(["--help"])
    assert "scripts/gpu_check.sh --dry-run --output" in capsys.readouterr().out
