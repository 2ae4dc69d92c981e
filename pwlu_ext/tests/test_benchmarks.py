"""The benchmarks as far as a machine without a GPU can run them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pwlu_ext.benchmarks import measure, operator_cpu, operator_gpu, page, sanitizer_case


def test_every_round_runs_every_call_once() -> None:
    log: list[str] = []
    seconds = iter(range(100))

    def clock(call: Callable[[], object]) -> float:
        call()
        return next(seconds)

    calls = {name: lambda name=name: log.append(name) for name in ("a", "b", "c")}
    finished: list[int] = []
    times = measure.interleaved_times(calls, rounds=2, warm_up=1, clock=clock, progress=finished.append)
    assert log == ["a", "b", "c"] * 3
    assert times == {"a": [3, 6], "b": [4, 7], "c": [5, 8]}  # the warm-up's 0, 1, 2 do not count
    assert finished == [1, 2, 3]


def test_percentiles_by_hand() -> None:
    seconds = [0.011, 0.001, 0.006] + [0.001 * i for i in (2, 3, 4, 5, 7, 8, 9, 10)]
    assert measure.percentiles_ms(seconds) == pytest.approx((2.0, 6.0, 10.0))


def test_memory_of_one_call_is_without_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's counters, played: tensors lie there before, and a call takes more for a moment."""
    mib = 2**20
    state = {"now": 100 * mib, "peak": 900 * mib}

    def call() -> None:
        state["peak"] = max(state["peak"], state["now"] + 30 * mib)

    fakes = {
        "synchronize": lambda *_: None,
        "reset_peak_memory_stats": lambda: state.update(peak=state["now"]),
        "max_memory_allocated": lambda: state["peak"],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert measure.peak_mib(call, others_bytes=60 * mib) == 70.0
    assert measure.allocated_bytes(torch.device("cpu")) is None


def test_operator_gpu_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "operator.json"
    monkeypatch.setattr("sys.argv", ["operator_gpu", "--device", "cpu", "--output", str(output)])
    operator_gpu.main()
    record = json.loads(output.read_text())
    cases, intervals = record["sections"]["cases"], record["sections"]["intervals"]
    assert len(cases) == 12 and len(intervals) == 20
    assert {row["dtype"] for row in cases} == {"float32", "bfloat16"}
    assert {row["shape"][1] for row in cases} == {64, 256, 2048}
    assert {row["num_intervals"] for row in intervals} == {4, 8, 16, 32, 64}
    assert all(time > 0 for row in cases + intervals for time in row["milliseconds"].values())
    assert record["environment"]["torch"] == torch.__version__
    text = output.with_suffix(".md").read_text()
    assert "A dry run" in text and text in capsys.readouterr().out


def test_operator_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in {"LARGE": (2, 4, 4, 4), "SMALL": (1, 8, 16, 8)}.items():
        monkeypatch.setattr(operator_cpu, name, shape)
    monkeypatch.setattr(operator_cpu, "slow_calls", lambda *_: {})  # compiling takes minutes
    output = tmp_path / "operator.json"
    monkeypatch.setattr("sys.argv", f"x --threads 1 --rounds 2 --output {output}".split())
    operator_cpu.main()
    sections = json.loads(output.read_text())["sections"]
    assert {name: len(rows) for name, rows in sections.items()} == {
        "cases": 10, "single_call": 1, "intervals": 12, "batch_norm": 10
    }  # fmt: skip
    assert "| pwlu forward + backward | " in output.with_suffix(".md").read_text()


def operator_record() -> dict[str, Any]:
    times = {
        "copy": 0.25,
        "silu": 0.25,
        "silu backward": 0.4,
        "pwlu": 0.3,
        "folded": 0.5,
        "pwlu backward": 0.46,
    }
    row = {
        "shape": [512, 64, 56, 56], "dtype": "float32", "memory_format": "contiguous",
        "functions": "channel-wise", "num_intervals": 16, "milliseconds": times,
    }  # fmt: skip
    return {
        "benchmark": "operator_gpu",
        "arguments": {"device": "cuda", "mebibytes": 256.0, "rounds": 100, "warm_up": 10},
        "environment": {
            "gpu": "NVIDIA Something", "multiprocessors": 132, "torch": "2.14.1",
            "commit": "0123456789abcdef+changes", "date": "2026-01-02",
        },
        "sections": {
            "cases": [row],
            "intervals": [row | {"num_intervals": n, "milliseconds": {"pwlu": n / 8}} for n in (4, 64)],
        },
    }  # fmt: skip


def test_page_of_a_gpu_by_hand() -> None:
    text = page.operator_page(operator_record())
    assert (
        "NVIDIA Something (132 multiprocessors), torch 2.14.1, commit 0123456789+changes, 2026-01-02" in text
    )
    tensor = "512x64x56x56 float32 contiguous"
    # 2 * 4 bytes * 512 * 64 * 56 * 56 in 0.25 ms are 3288 GB/s
    assert f"| {tensor} channel-wise | 3288 | 1.20 | 1.20 | 2.00 | 1.84 | 1.15 |" in text
    assert f"| pwlu, {tensor} channel-wise | 0.5000 | 8.0000 |" in text


@pytest.mark.parametrize(
    ("program", "arguments", "sentence"),
    [
        (operator_gpu, "--device cpu --rounds 0", "--rounds of at least 1"),
        (operator_gpu, "", "--device is cuda, but torch finds no usable GPU"),
        (sanitizer_case, "", "--device is cuda, but torch finds no usable GPU"),
    ],
)
def test_wrong_arguments(
    program: Any,
    arguments: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["program", *arguments.split()])
    with pytest.raises(SystemExit):
        program.main()
    assert sentence in capsys.readouterr().err


def test_sanitizer_case(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sanitizer_case, "SHAPES", ((2, 3, 4, 5),))
    monkeypatch.setattr("sys.argv", ["sanitizer_case", "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        sanitizer_case.main()
    assert not stop.value.code and capsys.readouterr().out == "48 cases, 0 wrong\n"
    right = sanitizer_case.pwlu.pwlu
    monkeypatch.setattr(sanitizer_case.pwlu, "pwlu", lambda x, *parameters: right(x, *parameters) + 100)
    with pytest.raises(SystemExit) as stop:
        sanitizer_case.main()
    assert stop.value.code and "48 cases, 48 wrong" in capsys.readouterr().out
