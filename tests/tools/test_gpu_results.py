"""What tools.gpu_check makes of what its steps leave behind, and the page."""

from pathlib import Path
from typing import Any

from tools import gpu_results, gpu_run
from tools.gpu_page import gpu_page, table


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


def latency_rows(*ratios: float) -> list[dict[str, Any]]:
    cases = [("relu", "eager"), ("pwlu", "eager"), ("pwlu", "compiled"), ("swish", "eager")]
    return [
        {"model": "resnet18", "activation": activation, "mode": mode, "ratio_to_relu": ratio,
         **({"peak_memory_mib": 1000 * ratio} if mode == "eager" else {})}
        for (activation, mode), ratio in zip(cases, ratios, strict=True)
    ]  # fmt: skip


def test_targets_of_networks() -> None:
    record = {"inference": latency_rows(1, 1.034, 2, 3), "training_step": latency_rows(1, 1.05, 2, 3)}
    found = list(gpu_results.latency_targets(record))
    assert [(t["case"], t["value"], t["met"]) for t in found] == [
        ("resnet18, inference, eager", 1.034, False),  # unrounded
        ("resnet18, training step, eager", 1.05, True),
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


def test_a_bar_does_not_end_a_cell() -> None:
    assert list(table(["a"], [["x | y"]]))[-1] == r"| x \| y |"
