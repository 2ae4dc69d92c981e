import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tools import gpu_check, gpu_results, gpu_run, latency
from tools.gpu_page import gpu_page
from tools.gpu_steps import ROOT, Step, all_steps, gpu_test_files

COMMON = {"read": gpu_results.nothing}


def step(name: str, code: str, **more: Any) -> Step:
    """A step of Python that runs here as it would on a GPU."""
    command = (sys.executable, "-c", code)
    return Step(name, more.pop("limit_s", 60), command, command, **{**COMMON, **more})


def check(
    monkeypatch: pytest.MonkeyPatch, output: Path, steps: list[Step], *arguments: str
) -> tuple[int, Any]:
    """The exit code and the record of a dry run of these steps."""
    monkeypatch.setattr(gpu_check, "all_steps", lambda architecture: tuple(steps))
    code = gpu_check.main(["--dry-run", "--output", str(output), *arguments])
    return code, json.loads(output.read_text()) if output.exists() else None


def test_script_runs_a_step_and_writes_record_and_page(tmp_path: Path) -> None:
    output = tmp_path / "new" / "gpu.json"
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--dry-run", "--output", str(output)]
    done = subprocess.run(
        [*command, "--steps", "build_info", "--commit", "0123abc"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
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


def test_what_a_step_has_started_ends_with_it(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    )
    code, output = gpu_run.run(
        [sys.executable, "-c", f"{child}; print(p.pid)"], tmp_path / "log", {"PATH": "/usr/bin:/bin"}, 30
    )
    assert code == 0
    status = Path(f"/proc/{int(output)}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the process that the step left running still runs")


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


def test_counts_of_tests(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(
        '<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1">'
        '<testcase classname="a.b" name="good"/><testcase classname="a.b" name="not"><skipped/></testcase>'
        '<testcase classname="a.b" name="bad[x]"><failure message="assert 1 == 2&#10;more"/></testcase>'
        '<testcase classname="a.b" name="good too"/></testsuite></testsuites>'
    )
    result, problem = gpu_results.junit("x")(tmp_path, "", False)
    assert not problem and result == {
        "passed": 2, "tests": 4, "failures": 1, "errors": 0, "skipped": 1,
        "failed": ["a.b.bad[x]: assert 1 == 2"],
    }  # fmt: skip
    (tmp_path / "y.xml").write_text('<testsuites><testsuite tests="3" skipped="3"/></testsuites>')
    assert gpu_results.junit("y")(tmp_path, "", False)[1] == "no test for a GPU ran"
    assert gpu_results.junit("y")(tmp_path, "", True)[1] == ""
    assert gpu_results.junit("z")(tmp_path, "", False)[1] == "pytest left no results"


def test_what_compute_sanitizer_says(tmp_path: Path) -> None:
    output = "========= COMPUTE-SANITIZER\n192 cases, 0 wrong\n========= ERROR SUMMARY: 0 errors\n"
    result, problem = gpu_results.sanitizer(tmp_path, output, False)
    assert (result, problem) == (
        {"summary": ["ERROR SUMMARY: 0 errors"], "cases": ["192 cases, 0 wrong"]},
        "",
    )
    hazards = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n"
    assert gpu_results.sanitizer(tmp_path, hazards, False)[1].startswith("no summary")
    assert gpu_results.refusal("========= Error: Device not supported. Please\n") == (
        "Error: Device not supported. Please"
    )
    assert gpu_results.refusal(output) == ""


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


def latency_rows(*ratios: float) -> list[dict[str, Any]]:
    cases = [("relu", "eager"), ("pwlu", "eager"), ("pwlu", "compiled"), ("swish", "eager")]
    return [
        {"model": "resnet18", "activation": activation, "mode": mode, "ratio_to_relu": ratio,
         **({"peak_memory_mib": 1000 * ratio} if mode == "eager" else {})}
        for (activation, mode), ratio in zip(cases, ratios, strict=True)
    ]  # fmt: skip


def test_targets_of_networks() -> None:
    record = {"inference": latency_rows(1, 1.034, 2, 3), "training_step": latency_rows(1, 1.06, 2, 3)}
    found = list(gpu_results.latency_targets(record))
    assert [(t["case"], t["value"], t["met"]) for t in found] == [
        ("resnet18, inference, eager", 1.034, True),  # 1.03 with two digits
        ("resnet18, training step, eager", 1.06, False),
    ]


def test_page_has_targets_memory_and_the_pages_of_the_steps() -> None:
    rows = latency_rows(1, 1.06, 2, 1.5)
    result = {
        "record": {"training_step": rows},
        "page": "<!-- generated -->\n# One page\n\n## Its section\ntext\n",
        "targets": list(gpu_results.latency_targets({"inference": [], "training_step": rows})),
    }
    outcome = gpu_run.Outcome("passed", result=result, seconds=12.0, limit_s=60).described()
    record = {
        "dry_run": False, "commit": "0123abc", "time_utc": "2026-01-02T03:04:05+00:00", "python": "3.12.3",
        "cpu_cores": 16, "steps": [{"name": "training_step", **outcome}],
        "gpu": {"name": "NVIDIA H200", "compute_capability": "9.0", "torch_cuda": "13.0"},
    }  # fmt: skip
    text = gpu_page(record)
    assert "# Everything on a GPU: NVIDIA H200" in text and "commit 0123abc, 2026-01-02" in text
    assert "| resnet18, training step, eager | pwlu / relu | 1.060 | <= 1.05 | **missed** |" in text
    assert "| resnet18, eager | swish | 1500 | 1.50 |" in text
    assert "\n## One page\n\n### Its section\ntext\n" in text and "<!-- generated -->" not in text


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        gpu_check.main(["--help"])
    assert "scripts/gpu_check.sh --dry-run --output" in capsys.readouterr().out
