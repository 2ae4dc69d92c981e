"""The benchmark of the kernels as far as a machine without a GPU can run it: its arithmetic, a dry run."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
Load = Callable[[str], ModuleType]


def milliseconds(**p50: float) -> dict[str, dict[str, float]]:
    return {name.replace("_", " "): {"p50": time, "p10": time, "p90": time} for name, time in p50.items()}


def gpu_record() -> dict[str, Any]:
    """One case at 4.096 TB/s, with a forward pass on its limits and a backward pass below one of them."""
    row = {
        "shape": [512, 64, 56, 56], "dtype": "float32", "memory_format": "contiguous",
        "functions": "channel-wise", "num_intervals": 16, "tensor_bytes": 512_000_000,
        "milliseconds": milliseconds(
            copy=0.25, silu=0.25, silu_backward=0.4, pwlu=0.2778, folded=0.5, pwlu_backward=0.461
        ),
        "same_bits": {"pwlu": True, "pwlu backward": False},
        "peak_mib": {"pwlu": 488.3},
    }  # fmt: skip
    intervals = [
        row | {"num_intervals": count, "milliseconds": milliseconds(pwlu=time, pwlu_backward=2 * time**2)}
        for count, time in ((4, 1.0), (64, 1.1))
    ]
    return {
        "arguments": {"device": "cuda", "mebibytes": 256.0, "rounds": 100, "warm_up": 10, "sets": 3},
        "environment": {
            "gpu": "NVIDIA Something", "multiprocessors": 132, "l2_mib": 60.0, "torch": "2.11.0",
            "commit": "0123456789abcdef", "date": "2026-01-02",
        },
        "sections": {"cases": [row], "intervals": intervals},
    }  # fmt: skip


def test_targets_by_hand(load: Load) -> None:
    found = {f.what: f for f in load("gpu_targets").findings(gpu_record()["sections"])}
    expected = {
        "pwlu: share of the copy's bandwidth": (0.25 / 0.2778, False),  # 0.8999 is not 0.9
        "pwlu / silu": (0.2778 / 0.25, False),
        "folded: share of the copy's bandwidth": (0.5, False),
        "folded / silu": (2.0, False),
        "pwlu backward: share of the limit of three streams": (0.25 * 1.5 / 0.461, True),
        "pwlu backward / silu backward": (0.461 / 0.4, False),  # 1.1525 is not 1.15
        "pwlu: two runs have the same bits": (1.0, True),
        "pwlu backward: two runs have the same bits": (0.0, False),
        "pwlu: slowest / fastest of 4 to 64 intervals": (1.1, True),
        "pwlu backward: slowest / fastest of 4 to 64 intervals": (1.21, False),
    }
    assert list(found) == list(expected)
    for what, (value, met) in expected.items():
        assert (found[what].value, found[what].met) == (pytest.approx(value), met), what


def test_page_of_a_gpu(load: Load) -> None:
    text = load("gpu_table").gpu_table(gpu_record())
    assert "NVIDIA Something (132 multiprocessors, 60 MiB" in text
    assert "3 of 10 targets met." in text
    assert "| float32 contiguous 512x64x56x56 | 0.900 **missed** | 1.111 **missed** |" in text
    assert "| float32 contiguous 512x64x56x56 | 4096 | 0.2500 |" in text
    assert "| float32 contiguous 512x64x56x56 | 488.3 |" in text


def test_dry_run(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "operator.json"
    monkeypatch.setattr("sys.argv", ["operator_gpu", "--device", "cpu", "--output", str(output)])
    load("operator_gpu").main()
    record = json.loads(output.read_text())
    cases, intervals = record["sections"]["cases"], record["sections"]["intervals"]
    assert len(cases) == 12 and len(intervals) == 20 and "targets" not in record["sections"]
    assert {row["dtype"] for row in cases} == {"float32", "bfloat16"}
    assert {row["shape"][1] for row in cases} == {64, 256, 2048}
    assert {row["num_intervals"] for row in intervals} == {4, 8, 16, 32, 64}
    times = [time for row in cases + intervals for time in row["milliseconds"].values()]
    assert all(0 < time["p10"] <= time["p50"] <= time["p90"] for time in times)
    assert all(row["same_bits"] == {"pwlu": True, "pwlu backward": True} for row in cases)
    assert ["folded compiled" in row["milliseconds"] for row in cases] == 4 * [False, True, False]
    assert record["environment"]["torch"] == torch.__version__
    text = output.with_suffix(".md").read_text()
    assert "DRY RUN" in text and "met" not in text and text in capsys.readouterr().out


def test_tensors_have_the_bytes_asked_for(load: Load) -> None:
    operator_gpu, rivals = load("operator_gpu"), load("rivals")
    for case, channels in operator_gpu.cases():
        shape = operator_gpu.shape_of(case, channels, 256)
        bytes_of = torch.Size(shape).numel() * rivals.DTYPES[case.dtype].itemsize
        assert 2**28 <= bytes_of < 1.01 * 2**28


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["operator_gpu"])
    with pytest.raises(SystemExit, match="error: --device is cuda, but torch finds no usable GPU"):
        load("operator_gpu").main()
    monkeypatch.setattr("sys.argv", ["sanitizer_case"])
    with pytest.raises(SystemExit, match="error: --device is cuda, but torch finds no usable GPU"):
        load("sanitizer_case").main()


def test_settings_that_make_no_sense(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["operator_gpu", "--device", "cpu", "--rounds", "1"])
    with pytest.raises(SystemExit, match="--rounds 1 .*expected more than 0, at least 2"):
        load("operator_gpu").main()


class PlayedEvent:
    """An event of a GPU that takes 1 ms for everything between two of them that is logged."""

    log: list[str] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = len(self.log)

    def elapsed_time(self, end: "PlayedEvent") -> float:
        return float(end.at - self.at)


def test_a_round_on_a_gpu_fills_the_queue_first_and_waits_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PlayedEvent.log
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("wait"))
    calls = {"a": lambda: log.append("a"), "b": lambda: log.extend("bb")}
    times = load("gpu_clock").cuda_round(calls, lambda: log.append("fill"))
    assert log == ["fill", "a", "b", "b", "wait"]
    assert times == {"a": 0.001, "b": 0.002}


def test_the_filler_copies(load: Load) -> None:
    load("gpu_clock").filler(torch.device("meta"))()
    assert load("gpu_clock").filler(torch.device("cpu"))() is None


def test_calls_take_the_sets_in_turns(load: Load) -> None:
    log: list[int] = []
    turns = load("gpu_clock").rotated([{"a": lambda i=i: log.append(i)} for i in range(3)])
    for _ in range(5):
        turns["a"]()
    assert log == [0, 1, 2, 0, 1]


def test_percentiles_by_hand(load: Load) -> None:
    seconds = [0.011, 0.001, 0.006] + [0.001 * i for i in (2, 3, 4, 5, 7, 8, 9, 10)]
    assert load("gpu_clock").spread(seconds) == {"p50": 6.0, "p10": 2.0, "p90": 10.0}


def test_bits_tell_what_numbers_do_not(load: Load) -> None:
    same_bits = load("gpu_clock").same_bits
    values = iter([torch.tensor([0.0]), torch.tensor([-0.0])])
    assert not same_bits(lambda: next(values))
    assert same_bits(lambda: (torch.tensor([torch.nan]), torch.ones(2, dtype=torch.bfloat16)))


def test_memory_of_a_call(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"now": 50 * 2**20, "peak": 0}
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["now"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: state.update(peak=state["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])

    def call() -> None:
        state["peak"] += 3 * 2**20

    assert load("gpu_clock").peak_mib(call, torch.device("cuda")) == 3.0


def test_environment_names_the_gpu(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(
        name="NVIDIA Something", major=9, minor=0, multi_processor_count=132, total_memory=2**37,
        L2_cache_size=60 * 2**20,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    environment = load("measure").environment("cuda")
    assert environment["gpu"] == "NVIDIA Something" and environment["compute_capability"] == "9.0"
    assert environment["l2_mib"] == 60.0 and environment["memory_gib"] == 128.0


def test_commit_of_a_copy_without_a_repository(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = load("measure")
    monkeypatch.setattr(measure.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError("no git")))
    assert measure.commit() == "unknown"
    monkeypatch.setenv("PWLU_COMMIT", "0123abc")
    assert measure.commit() == "0123abc"


def test_page_tells_a_changed_tree(load: Load) -> None:
    record = gpu_record()
    assert "commit 0123456789ab, " in load("gpu_table").gpu_table(record)
    record["environment"]["commit"] += "+changes"
    assert "commit 0123456789ab+changes, " in load("gpu_table").gpu_table(record)
    assert load("measure").short("unknown") == "unknown"


def test_the_page_does_not_replace_the_record(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for program in ("operator_gpu", "inspect_kernels"):
        monkeypatch.setattr("sys.argv", [program, "--output", "some.md"])
        with pytest.raises(SystemExit, match="2"):
            load(program).main()
        assert "--output: some.md: expected a name that ends in .json" in capsys.readouterr().err


def test_sanitizer_case(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = load("sanitizer_case")
    monkeypatch.setattr(program, "SHAPES", ((2, 3, 4, 5),))
    monkeypatch.setattr("sys.argv", ["sanitizer_case", "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert not stop.value.code and capsys.readouterr().out == "48 cases, 0 wrong\n"
    right = program.pwlu.pwlu
    monkeypatch.setattr(program.pwlu, "pwlu", lambda x, *parameters: right(x, *parameters) + 100)
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code and "48 cases, 48 wrong" in capsys.readouterr().out
