"""The networks that tools.latency measures, in the form that one would deploy, and the ways to call them."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import pwlu
from engine.records.console import say
from models import activation_factory, build_classifier
from pwlu_ext.benchmarks.measure import Call

NUM_CLASSES = 1000
SEED = 0
NOISE = 0.1  # standard deviation of what is added to every parameter of a PWLU
BATCH_NORM_IMAGES = 8
ABSORBED = "pwlu (BatchNorm absorbed)"


def inference_networks(
    name: str, activations: Sequence[str], image_size_px: int
) -> Iterator[tuple[str, nn.Module]]:
    """Yield (row's name, network in eval mode on the CPU) for every activation.

    PWLU comes in the form of section 4.3 (`pwlu.fold`), and once more with BatchNorms absorbed. The
    convolutions start from the same numbers in all of them.

    Raises:
        ValueError: an unknown name, or a network whose BatchNorms cannot be absorbed.
    """
    for activation in activations:
        network = training_form(name, activation, image_size_px)
        if activation == "pwlu":
            yield activation, pwlu.fold(network)
            size = (3, image_size_px, image_size_px)
            yield ABSORBED, pwlu.fold(network, absorb_batch_norm=True, input_size=size)
        else:
            yield activation, network


def training_form(name: str, activation: str, image_size_px: int) -> nn.Module:
    """Return timm's network `name` in eval mode, on the CPU, with PWLUs that are no ReLUs, as if trained."""
    torch.manual_seed(SEED)
    size = (3, image_size_px, image_size_px)
    make = activation_factory(activation)
    network, _ = build_classifier(name, make, num_classes=NUM_CLASSES, input_size=size)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, pwlu.PWLU):
                for parameter in module.parameters():
                    parameter.add_(NOISE * torch.randn_like(parameter))
    # With its own statistics every layer has values of size 1, which reach every interval.
    update_bn([torch.randn(BATCH_NORM_IMAGES, *size)], network)
    return network.eval()


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


MODES: dict[str, Callable[[nn.Module, Tensor], Call]] = {
    "eager": eager,
    "compiled": lambda network, images: eager(compile_alone(network), images),
    "cuda-graph": cuda_graph,
}


def prepare(mode: str, row: str, make: Callable[[], Call]) -> Call:
    """Return `make()`, the call of `row` in `mode`, after a first call; say how long compiling took.

    Raises:
        ValueError: it cannot be run in this mode.
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
            f"{row} cannot run in mode {mode} ({type(error).__name__}: {reason}); leave that mode out of "
            "--modes or that activation out of --activations"
        ) from error
    if mode != "eager":
        say(f"  {row}, {mode}: prepared in {time.perf_counter() - start:.1f} s")
    return call


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's or the machine's memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
