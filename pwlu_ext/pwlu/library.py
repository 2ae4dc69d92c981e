"""Loads the compiled operators and says what was built."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent


def library_file(stem: str) -> Path | None:
    """Return where the library `_cpu`, `_cuda` or `_onnx` lies, or None where it is not built."""
    found = sorted(_FOLDER.glob(f"{stem}.*so"))
    return found[0] if found else None


def _load_cpu() -> dict[str, Any]:
    """Load the CPU library; return what setup.py noted about the build."""
    path = library_file("_cpu")
    if path is None:
        raise ImportError("pwlu: the operators are not built. Build them with: pip install ./pwlu_ext")
    built = json.loads((_FOLDER / "_build_info.json").read_text())
    if _numbers(torch.__version__) < _numbers(built["oldest_torch"]):
        raise ImportError(
            f"pwlu: torch {torch.__version__} is too old: pwlu is built on the stable ABI of torch >= "
            f"{built['oldest_torch']}. Install a newer torch."
        )
    torch.ops.load_library(path)
    return built


def _numbers(version: str) -> tuple[int, int]:
    """Return major and minor of a release of torch or CUDA."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _load_cuda(built: dict[str, Any]) -> str:
    """Load the CUDA library where it can be; return how that went, for `build_info`."""
    path = library_file("_cuda")
    if not built["cuda"] or path is None:
        return f"not built: {built.get('why_not_cuda', 'its file is missing')}"
    toolkit, of_torch = built["cuda_toolkit"], torch.version.cuda
    if of_torch is None:
        return "not loaded: this torch is a build without CUDA"
    if _numbers(toolkit)[0] != _numbers(of_torch)[0]:
        return f"not loaded: it was built with CUDA {toolkit}, but this torch with CUDA {of_torch}"
    try:
        torch.ops.load_library(path)
    except OSError as error:  # torch says which library; the cause says what it misses
        return f"not loaded: {error.__cause__ or error}"
    return "loaded"


_BUILT = _load_cpu()
_CUDA_STATUS = _load_cuda(_BUILT)


def cuda_is_loaded() -> bool:
    """Return whether the operators have their CUDA kernels."""
    return _CUDA_STATUS == "loaded"


def check_device(device: torch.device) -> None:
    """Raise RuntimeError, with the build command, if there are no operators for tensors on `device`."""
    if device.type == "cuda" and _CUDA_STATUS != "loaded":
        raise RuntimeError(
            f"pwlu: no CUDA kernels ({_CUDA_STATUS}). Build them with: PWLU_BUILD_CUDA=1 pip install "
            "--no-build-isolation ./pwlu_ext -- or use pwlu.pwlu_reference, which is plain torch."
        )


def accept_any_layout(*operators: torch._ops.OpOverload) -> None:
    """Let torch.compile choose the memory layout of what goes into `operators`.

    It would give them the layout that eager mode has, and on a CPU, where its convolutions are channels_last,
    transpose before and after each.
    """
    for operator in operators:  # in a schema of the stable ABI, tags came with torch 2.12
        operator.tags.append(torch.Tag.flexible_layout)


def build_info() -> dict[str, Any]:
    """Return what was built and what is in use, as plain values (for records and bug reports).

    Keys: version; torch (the release it was built against); oldest_torch (the oldest one that it works with);
    cuda (whether the CUDA library was built), then cuda_toolkit and cuda_architectures, or why_not_cuda;
    onnx (whether the library for ONNX Runtime was built: `pwlu.onnx.custom_op_library`);
    cuda_status ("loaded", or why not); cpu_isa (the instruction set in use: avx512_bf16, avx512, avx2 or
    plain; the environment variable PWLU_CPU_ISA forces one).
    """
    info: dict[str, Any] = {"version": importlib.metadata.version("pwlu-cuda"), **_BUILT}
    info["cuda_status"] = _CUDA_STATUS
    info["cpu_isa"] = torch.ops.pwlu.cpu_isa()
    return info
