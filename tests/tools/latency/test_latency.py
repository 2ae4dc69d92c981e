import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.amp import Precision
from engine.processes.distributed import World
from pwlu import FoldedPWLU
from pwlu_ext.benchmarks.measure import cuda_clock
from tools.latency import __main__ as latency
from tools.latency import families as latency_families
from tools.latency import training as latency_training
from tools.latency.networks import ABSORBED, DEFAULT, inference_networks, training_form
from tools.latency.runtimes import (
    RUNTIMES,
    Runtime,
    choose_runtimes,
    compile_alone,
    cuda_graph,
    eager,
    prepare,
)

TINY = (
    "--models test_resnet --image-size 32 --batch-size 2 --training-batch-size 2 --iterations 3 --warm-up 1"
)


def run_main(monkeypatch: pytest.MonkeyPatch, output: Path, arguments: str) -> None:
    command = ["latency", "--output", str(output), "--device", "cpu", *TINY.split(), *arguments.split()]
    monkeypatch.setattr("sys.argv", command)
    latency.main()


def test_percentiles_and_ratio_by_hand() -> None:
    # The ratio is the median of 3/1, 1/2, 2/2, 5/1, 4/8, not the ratio of the medians 3 and 2.
    times, relu = [0.003, 0.001, 0.002, 0.005, 0.004], [0.001, 0.002, 0.002, 0.001, 0.008]
    assert latency_families.summarize(times, relu) == {
        "p50_ms": 3.0,
        "p10_ms": 1.4,
        "p90_ms": 4.6,
        "ratio_to_relu": 1.0,
    }


def test_rows_of_pwlu() -> None:
    trained = training_form("test_resnet", "pwlu", 32)
    rows = dict(inference_networks(trained, "pwlu", 32, ["hinges", "table"]))
    assert {row: list(networks) for row, networks in rows.items()} == {
        "pwlu": ["hinges", "table"],
        ABSORBED: ["hinges", "table"],
        DEFAULT: ["hinges"],
    }
    assert DEFAULT not in dict(inference_networks(trained, "pwlu", 32, ["table"]))
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = trained(images)
        for networks in rows.values():
            for network in networks.values():
                assert not network.training
                torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-4)
        relu = training_form("test_resnet", "relu", 32)
        assert (relu(images) - expected).abs().max() > 0.1  # its PWLUs are no ReLUs
    assert len(rows[ABSORBED]["table"].fold_report.feeds) > 0
    assert any(isinstance(module, FoldedPWLU) for module in rows[DEFAULT]["hinges"].modules())


def test_a_call_that_counts_comes_after_its_like() -> None:
    said: list[str] = []
    clock = latency_families.after_itself(lambda call: (said.append("clock"), call(), 5.0)[-1])
    assert clock(lambda: said.append("call")) == 5.0
    assert said == ["call", "clock", "call"]


@pytest.mark.parametrize("runtime", ["aotinductor", "onnxruntime", "onnxruntime-operator", "openvino"])
def test_runtimes_compute_the_network(runtime: str) -> None:
    why_not = RUNTIMES[runtime].why_not(torch.device("cpu"))
    if why_not is not None:
        pytest.skip(why_not)
    trained = training_form("test_resnet", "pwlu", 32)
    images = torch.randn(4, 3, 32, 32)
    form = RUNTIMES[runtime].form
    network = dict(inference_networks(trained, "pwlu", 32, [form]))["pwlu"][form]
    call = RUNTIMES[runtime].prepare(network, images)
    assert latency_families.relative_difference(call(), eager(trained, images)()) < 1e-5


def test_a_runtime_is_gone_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: weakref.WeakSet[Any] = weakref.WeakSet()

    def first(network: nn.Module, images: Tensor) -> Any:
        call = eager(network, images)
        calls.add(call)
        return call

    def second(network: nn.Module, images: Tensor) -> Any:
        assert not calls
        return eager(network, images)

    monkeypatch.setitem(RUNTIMES, "eager", Runtime(first))
    monkeypatch.setitem(RUNTIMES, "compile", Runtime(second))
    run_main(monkeypatch, tmp_path / "x.json", "--activations relu pwlu --runtimes eager,compile")
    assert not calls


def test_difference_by_hand() -> None:
    expected = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    assert latency_families.relative_difference(expected.numpy() + 0.5, expected) == pytest.approx(0.1)


def test_networks_beyond_torchs_limit_are_all_compiled() -> None:
    class Network(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(3, width)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    compilations = []

    def backend(graph: Any, _: list[Tensor]) -> Any:
        compilations.append(graph)
        return graph

    limit, x = 4, torch.randn(2, 3)
    networks = [Network(width) for width in range(1, limit + 3)]
    # Set here, since timm.optim raises torch's own limit to a million where it is imported.
    with torch._dynamo.config.patch(recompile_limit=limit):
        calls = [eager(compile_alone(network, backend), x) for network in networks]
        for _ in range(2):
            for network, call in zip(networks, calls, strict=True):
                torch.testing.assert_close(call(), network(x).detach())
    assert len(compilations) == len(networks)


def test_training_step_is_in_phase_two_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    build = latency_training.new_state
    monkeypatch.setattr(
        latency_training, "new_state", lambda *a, **k: states.append(build(*a, **k)) or states[-1]
    )
    world = World()
    batch = (torch.randn(4, 3, 32, 32), torch.arange(4))

    def calls(images: Tensor) -> dict[str, Callable[[], object]]:
        return latency_training.training_steps(
            "test_resnet", "pwlu", (images, batch[1]), runtimes=["eager"], world=world,
            precision=Precision("off", world.device), memory_format=torch.channels_last,
        )[0]  # fmt: skip

    call = calls(batch[0])["eager"]
    assert states[0].phase == 2
    name = next(name for name, _ in states[0].model.named_parameters() if name.endswith("points"))
    before = states[0].model.get_parameter(name).detach().clone()
    call()
    assert not torch.equal(states[0].model.get_parameter(name), before)
    with pytest.raises(ValueError, match="the loss of the training step is not finite"):
        spoilt = calls(torch.full_like(batch[0], torch.inf))["eager"]
        for _ in range(2):
            spoilt()


def test_record_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = tmp_path / "paper.csv"
    paper.write_text("table,row,column,metric,value,unit\n4,Test-ResNet,ReLU,inference_time,10.0,ms\n")
    monkeypatch.setattr(latency, "PAPER", paper)
    monkeypatch.setitem(RUNTIMES, "compile", Runtime(eager))  # compiling takes minutes
    output = tmp_path / "results" / "latency.json"
    run_main(monkeypatch, output, "--activations relu pwlu --threads 1 --runtimes eager,compile")
    record = json.loads(output.read_text())
    rows = record["inference"]
    names = ["relu", "pwlu", ABSORBED]
    assert [(row["activation"], row["runtime"]) for row in rows] == [
        (name, runtime) for runtime in ("eager", "compile") for name in names
    ]
    assert all(row["difference"] < 1e-5 for row in rows)
    assert all(0 < row["p10_ms"] <= row["p50_ms"] <= row["p90_ms"] for row in rows)
    assert [row["ratio_to_relu"] for row in rows if row["activation"] == "relu"] == [1.0, 1.0]
    assert record["training_step"] == [] and record["left_out"] == []
    assert record["arguments"]["iterations"] == 3
    assert record["arguments"]["runtimes"] == ["eager", "compile"]
    environment = record["environment"]
    assert environment["hardware"]["threads_per_process"] == 1 and environment["packages"]["torch"]
    assert {"commit", "uncommitted_changes"} <= set(environment["code"])
    text = output.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out
    assert "# Latency on a CPU, 1 thread (" in text
    assert "| 10.0 | 1.00 |" in text


@pytest.mark.parametrize("gpu", [False, True])
def test_training_step_alone(gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu:  # torch counts a GPU's memory, which is played here
        monkeypatch.setattr(latency_families, "allocated_bytes", lambda device: 5)
        monkeypatch.setattr(latency_families, "peak_mib", lambda call, others: 100.0 + others)
    output = tmp_path / "step.json"
    run_main(monkeypatch, output, "--activations relu pwlu --runtimes eager --training-step only")
    record = json.loads(output.read_text())
    assert record["inference"] == []
    rows = {row["activation"]: row for row in record["training_step"]}
    assert list(rows) == ["relu", "pwlu", latency_training.FUSED]
    assert [row.get("peak_memory_mib") for row in rows.values()] == [105.0 if gpu else None] * 3
    kept = {name: row["kept_mib"] for name, row in rows.items()}
    assert kept[latency_training.FUSED] < 1.1 * kept["relu"] < kept["pwlu"]
    page = output.with_suffix(".md").read_text()
    assert "Table 4" not in page and ("| memory (MiB) |" in page) == gpu
    assert "| kept for backward (MiB) |" in page


def test_runtimes_that_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    chosen, left_out = choose_runtimes(None, gpu)
    assert chosen == ["eager", "compile", "cuda-graph", "aotinductor"]
    assert left_out[-1] == "openvino was left out: it is measured on cpu, but the device is cuda."
    monkeypatch.setitem(RUNTIMES, "openvino", Runtime(eager, packages=("torch", "not_here", "nor_this")))
    assert "openvino" not in choose_runtimes(None, cpu)[0]
    with pytest.raises(
        ValueError, match="--runtimes has openvino, but it needs more: pip install not_here nor_this;"
    ):
        choose_runtimes(["openvino"], cpu)
    monkeypatch.setitem(RUNTIMES, "openvino", Runtime(eager, lacking=lambda: "the moon is full"))
    with pytest.raises(ValueError, match="--runtimes has openvino, but the moon is full; leave it out"):
        choose_runtimes(["openvino"], cpu)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--models resnet81", "--models: model name is 'resnet81'"),
        ("--activations relu swich", "--activations: activation name is 'swich'"),
        ("--activations pwlu swish", "--activations is pwlu swish, without relu"),
        ("--runtimes eager,cuda-graph", "--runtimes has cuda-graph, but it is measured on cuda"),
        ("--runtimes eager,compiled", "runtime is 'compiled', expected one of eager, compile"),
        (
            "--runtimes aotinductor --training-step",
            "--runtimes is aotinductor, in which the training step cannot run; add eager or compile",
        ),
        ("--device cuda", "--device is cuda, but torch finds no usable GPU"),
        ("--iterations 0", "argument --iterations: expected an integer >= 1, got '0'"),
        ("--output x.md", "argument --output: expected a name that ends in .json, got x.md"),
    ],
)
def test_wrong_arguments(
    arguments: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run_main(monkeypatch, tmp_path / "x.json", arguments)
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(RUNTIMES, "eager", Runtime(full))
    with pytest.raises(SystemExit):
        run_main(monkeypatch, tmp_path / "x.json", "--runtimes eager --activations relu")
    sentence = "test_resnet, inference: the memory of the cpu does not suffice; take a smaller --batch-size"
    assert sentence in capsys.readouterr().err
    assert latency_families.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


def test_a_runtime_that_fails_names_the_row() -> None:
    def fail() -> None:
        raise RuntimeError("no compiler\nand more")

    sentence = r"pau cannot run in compile \(RuntimeError: no compiler\); leave that out of --runtimes"
    for make in (fail, lambda: fail):  # while it is prepared, or at the first call
        with pytest.raises(ValueError, match=sentence):
            prepare("compile", "pau", make)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_graph_replays_the_network() -> None:
    images = torch.randn(2, 3, 32, 32, device="cuda")
    for name in ("relu", "pwlu", "frelu", "apl", "pau"):
        trained = training_form("test_resnet", name, 32)
        for row, networks in inference_networks(trained, name, 32, ["table"]):
            network = networks["table"].cuda()
            replay = cuda_graph(network, images)
            assert cuda_clock(replay) > 0
            images.normal_()
            torch.testing.assert_close(
                replay(), eager(network, images)(), msg=lambda text, row=row: f"{row}: {text}"
            )
