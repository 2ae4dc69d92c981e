"""The steps of tools.gpu_check, the most important first: what each runs, for how long, and what it needs."""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools import gpu_results

ROOT = Path(__file__).parents[1]
BENCHMARKS = "pwlu_ext/benchmarks"
NO_GPU = "no GPU"
DRY_ARCHITECTURE = "9.0"


@dataclass(frozen=True)
class Step:
    """A command, in which {folder} is a folder for what it writes.

    `dry` is what a CPU can do of it, and `dry_note` what that leaves out.
    """

    name: str
    limit_s: int
    command: tuple[str, ...]
    dry: tuple[str, ...] | None
    read: gpu_results.Reader
    modules: tuple[str, ...] = ()  # that must be importable
    program: str = ""  # that the command starts with, where it may be missing
    environment: Mapping[str, str] = field(default_factory=dict)
    dry_environment: Mapping[str, str] = field(default_factory=dict)
    dry_note: str = ""


def all_steps(architecture: str) -> tuple[Step, ...]:
    """Return the steps; `architecture` is the GPU's compute capability, such as 9.0."""
    of_networks = ("timm", "torchvision", "yaml", "tensorboard", "PIL", "numpy")
    return (
        build_step(architecture),
        Step("build_info", 30, _BUILD_INFO, _BUILD_INFO, gpu_results.build_info, dry_note=NO_GPU),
        tests_step("tests_extension", 150, ("pwlu_ext/tests",), ("hypothesis",)),
        Step(
            "operator",
            120,
            _operator("cuda"),
            _operator("cpu"),
            gpu_results.record_of("operator"),
            dry_note=f"on the CPU, tiny: {NO_GPU}",
        ),
        latency_step("training_step", 110, _TRAINING, _DRY_TRAINING, of_networks),
        latency_step("table4", 130, _TABLE_4, _DRY_TABLE_4, of_networks),
        *(sanitizer_step(tool) for tool in ("memcheck", "racecheck")),
        tests_step("tests_project", 60, tuple(gpu_test_files()), (*of_networks, "webdataset")),
        latency_step("table4_compiled", 200, _COMPILED, _DRY_COMPILED, of_networks),
    )


def python(*arguments: str) -> tuple[str, ...]:
    """Return a command of the Python that runs this."""
    return (sys.executable, *arguments)


_BUILD_INFO = python("-c", "import json, pwlu; print(json.dumps(pwlu.build_info()))")


def build_step(architecture: str) -> Step:
    """Return what builds a copy of the sources into a folder of its own: the environment stays as it is."""
    options = "--no-build-isolation --no-deps --no-index --quiet --disable-pip-version-check"
    command = python("-m", "pip", "install", *options.split(), "--target", "{folder}/site", "{folder}/source")
    return Step(
        "build",
        180,
        command,
        command,
        gpu_results.nothing,
        modules=("pip", "setuptools", "ninja"),
        environment={"PWLU_BUILD_CUDA": "1", "TORCH_CUDA_ARCH_LIST": architecture},
        # Compiling needs no GPU.
        dry_environment={"PWLU_BUILD_CUDA": "auto", "TORCH_CUDA_ARCH_LIST": DRY_ARCHITECTURE},
        dry_note=f"for compute capability {DRY_ARCHITECTURE}, if nvcc is here: {NO_GPU}",
    )


def tests_step(name: str, limit_s: int, paths: tuple[str, ...], modules: tuple[str, ...]) -> Step:
    """Return pytest on what is marked `gpu`, on several processes where pytest-xdist is there."""
    workers = min(8, (os.cpu_count() or 1) // 2)
    parallel = ("-n", str(workers)) if workers > 1 and importlib.util.find_spec("xdist") else ()
    options = ("-m", "gpu", "-q", "-p", "no:cacheprovider", "--basetemp", f"{{folder}}/{name}")
    command = python("-m", "pytest", *options, *parallel, "--junitxml", f"{{folder}}/{name}.xml", *paths)
    read = gpu_results.junit(name)
    note = f"collected and skipped: {NO_GPU}"
    return Step(name, limit_s, command, command, read, modules=("pytest", *modules), dry_note=note)


def gpu_test_files() -> Iterator[str]:
    """Yield the files of tests/ that have a test for a GPU."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.gpu" in path.read_text():
            yield path.relative_to(ROOT).as_posix()


def _operator(device: str) -> tuple[str, ...]:
    return python(f"{BENCHMARKS}/operator_gpu.py", "--device", device, "--output", "{folder}/operator.json")


def latency_step(name: str, limit_s: int, arguments: str, dry: str, modules: tuple[str, ...]) -> Step:
    """Return tools.latency with these arguments."""
    common = ("-m", "tools.latency", "--output", f"{{folder}}/{name}.json")
    return Step(
        name,
        limit_s,
        python(*common, "--device", "cuda", *arguments.split()),
        python(*common, "--device", "cpu", *dry.split()),
        gpu_results.latency(name),
        modules=modules,
        dry_note=f"a tiny network on the CPU: {NO_GPU}",
    )


_TABLE_4 = "--modes eager cuda-graph --iterations 150 --warm-up 20"
_COMPILED = "--modes compiled --activations relu pwlu --iterations 100 --warm-up 20"
_TRAINING = (
    "--training-step only --models resnet18 resnet50 --activations relu swish pwlu --modes eager "
    "--training-batch-size 256 --training-amp bf16 --channels-last --iterations 40 --warm-up 10"
)
_TINY = "--models test_resnet --image-size 32 --iterations 2 --warm-up 1"
_DRY_TABLE_4 = f"{_TINY} --batch-size 2 --modes eager"
_DRY_COMPILED = f"{_TINY} --batch-size 2 --modes compiled --activations relu pwlu"
_DRY_TRAINING = (
    f"{_TINY} --training-step only --activations relu swish pwlu --modes eager --training-batch-size 2 "
    "--training-amp bf16 --channels-last"
)


def sanitizer_step(tool: str) -> Step:
    """Return every kernel on little tensors under a tool of compute-sanitizer; without it in a dry run."""
    case = python(f"{BENCHMARKS}/sanitizer_case.py", "--device")
    watched = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "99", *case, "cuda")
    return Step(
        tool,
        75,
        watched,
        # Once is enough: the tools differ, the program does not.
        (*case, "cpu") if tool == "memcheck" else None,
        gpu_results.sanitizer,
        program="compute-sanitizer",
        environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        dry_note=f"the program alone, on the CPU: {NO_GPU}",
    )
