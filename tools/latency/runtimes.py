"""The runtimes that tools.latency measures: how a network gets into each, and how it is called there."""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType

import numpy as np
import torch
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package, aoti_load_package

import pwlu
from engine.records.console import say
from pwlu.onnx import custom_op_library, translation_table
from pwlu_ext.benchmarks.measure import Call

ONNX = ("onnx", "onnxscript")
OPENVINO = "OpenVINOExecutionProvider"


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Attributes:
        prepare: makes a call of a network on images, both on the device where it is to run.
        form: of `pwlu.fold`, the one to take here.
        devices: where it is measured.
        packages: what has to be installed beside requirements.txt.
        lacking: returns what else is missing, as a sentence, or None.
    """

    prepare: Callable[[nn.Module, Tensor], Call]
    form: str = "table"
    devices: tuple[str, ...] = ("cpu", "cuda")
    packages: tuple[str, ...] = ()
    lacking: Callable[[], str | None] = lambda: None

    def why_not(self, device: torch.device) -> str | None:
        """Return why a network cannot be measured here, or None."""
        if device.type not in self.devices:
            return f"it is measured on {' and '.join(self.devices)}, but the device is {device.type}"
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            return f"it needs more: pip install {' '.join(missing)}"
        return self.lacking()


def no_openvino_provider() -> str | None:
    """Return the sentence if onnxruntime cannot run on OpenVINO."""
    import onnxruntime

    if OPENVINO in onnxruntime.get_available_providers():
        return None
    return "the installed onnxruntime has no OpenVINO: pip install onnxruntime-openvino in its place"


def no_operator() -> str | None:
    """Return the sentence if our operator for onnxruntime is not built."""
    built = pwlu.build_info()["onnx"]
    return None if built else "pwlu was built without PWLU_ONNXRUNTIME_INCLUDE (pwlu_ext/README.md)"


def eager(network: Callable[[Tensor], Tensor], images: Tensor) -> Call:
    """Return a call of the network as it is, without gradients."""

    def call() -> Tensor:
        with torch.no_grad():
            return network(images)

    return call


def compile_alone(network: nn.Module, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """Return the compiled network; an error rather than a part of it left to Python."""

    def forward(images: Tensor) -> Tensor:
        return network(images)

    # torch keeps what it has compiled with a function's code object. Networks that share one, such as timm's
    # forward, are searched at every call and, beyond a limit, run uncompiled: so each gets its own.
    alone = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    return torch.compile(alone, backend=backend, fullgraph=True)


def compiled(network: nn.Module, images: Tensor) -> Call:
    """Return a call of the network under torch.compile."""
    return eager(compile_alone(network), images)


def cuda_graph(network: nn.Module, images: Tensor) -> Call:
    """Return the replay of a CUDA graph that captured one eager call on the current GPU."""
    call = eager(network, images)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what libraries set up at a first call cannot be captured
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> object:
        graph.replay()
        return output

    return replay


def aotinductor(network: nn.Module, images: Tensor) -> Call:
    """Return a call of the network compiled ahead of time and loaded again."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(network, (images,))
        package = aoti_compile_and_package(program, package_path=str(Path(folder) / "network.pt2"))
        return eager(aoti_load_package(package), images)


def in_onnxruntime(network: nn.Module, images: Tensor, *, provider: str) -> Call:
    """Return a call of the network exported to ONNX, in one of onnxruntime's providers."""
    import onnxruntime

    threads = torch.get_num_threads()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # After a call its threads would wait busily for the next one, and slow down what else is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if no_operator() is None:
        options.register_custom_ops_library(custom_op_library())
    of_openvino = {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(threads)}
    chosen = (provider, of_openvino if provider == OPENVINO else {})
    session = onnxruntime.InferenceSession(onnx_file(network, images), options, providers=[chosen])
    inputs = {session.get_inputs()[0].name: images.numpy()}

    def call() -> np.ndarray:
        return session.run(None, inputs)[0]

    return call


def openvino_cpu(network: nn.Module, images: Tensor) -> Call:
    """Return a call of the network exported to ONNX, in OpenVINO on a CPU."""
    import openvino

    core = openvino.Core()
    # It would compute in bfloat16 where the processor can.
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(onnx_file(network, images)), "CPU", options)
    request, array = model.create_infer_request(), images.numpy()

    def call() -> np.ndarray:
        return request.infer([array], share_inputs=True)[0]

    return call


@lru_cache(maxsize=4)  # several runtimes read the same file, one after the other
def onnx_file(network: nn.Module, images: Tensor) -> bytes:
    """Return what torch.onnx.export makes of a network for images of this size."""
    table = translation_table()
    program = torch.onnx.export(
        network, (images,), dynamo=True, custom_translation_table=table, verbose=False
    )
    assert program is not None
    return program.model_proto.SerializeToString()


RUNTIMES = {
    "eager": Runtime(eager),
    "compile": Runtime(compiled),
    "cuda-graph": Runtime(cuda_graph, devices=("cuda",)),
    "aotinductor": Runtime(aotinductor, form="in_place"),
    "onnxruntime": Runtime(
        partial(in_onnxruntime, provider="CPUExecutionProvider"),
        form="convolutions",
        devices=("cpu",),
        packages=(*ONNX, "onnxruntime"),
    ),
    "onnxruntime-operator": Runtime(
        partial(in_onnxruntime, provider="CPUExecutionProvider"),
        form="operator",
        devices=("cpu",),
        packages=(*ONNX, "onnxruntime"),
        lacking=no_operator,
    ),
    "onnxruntime-openvino": Runtime(
        partial(in_onnxruntime, provider=OPENVINO),
        form="hinges",
        devices=("cpu",),
        packages=(*ONNX, "onnxruntime"),
        lacking=no_openvino_provider,
    ),
    "openvino": Runtime(openvino_cpu, "hinges", ("cpu",), (*ONNX, "openvino")),
}


def choose_runtimes(asked: Sequence[str] | None, device: torch.device) -> tuple[list[str], list[str]]:
    """Return the runtimes to measure, and a sentence for each that is left out.

    Raises:
        ValueError: one that is asked for cannot be measured here.
    """
    chosen, left_out = [], []
    for name in dict.fromkeys(asked or RUNTIMES):
        why = RUNTIMES[name].why_not(device)
        if why is None:
            chosen.append(name)
        elif asked:
            raise ValueError(f"--runtimes has {name}, but {why}; leave it out, or mend that")
        else:
            left_out.append(f"{name} was left out: {why}.")
    return chosen, left_out


def versions(runtimes: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that runtimes have beside torch, as the modules tell them."""
    # Two distributions hold the module onnxruntime; what is installed says nothing of which one is imported.
    names = dict.fromkeys(package for name in runtimes for package in RUNTIMES[name].packages)
    return {name: importlib.import_module(name).__version__ for name in names}


def prepare(runtime: str, row: str, make: Callable[[], Call]) -> Call:
    """Return `make()`, the call of `row` in a runtime, after a first call; say how long that took.

    Raises:
        ValueError: it cannot be run there.
    """
    start = time.perf_counter()
    try:
        call = make()
        call()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{row} cannot run in {runtime} ({type(error).__name__}: {reason}); leave that out of --runtimes "
            "or that activation out of --activations"
        ) from error
    if runtime != "eager":
        say(f"  {row}, {runtime}: prepared in {time.perf_counter() - start:.1f} s")
    return call


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's or the machine's memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
