"""Loads the compiled operators and says what was built."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent
_BUILD_COMMAND = "pip install --no-build-isolation ./pwlu_ext"


def _library(stem: str) -> Path | None:
    """The compiled library `stem`, or None if it was not built."""
    found = sorted(_FOLDER.glob(f"{stem}.*so")) + sorted(_FOLDER.glob(f"{stem}.*pyd"))
    return found[0] if found else None


def _load_cpu() -> None:
    path = _library("_cpu")
    if path is None:
        raise ImportError(f"pwlu: the operators are not built. Build them with: {_BUILD_COMMAND}")
    torch.ops.load_library(path)


def _load_cuda() -> str:
    """Load the CUDA library where it can be; returns how that went, for :func:`build_info`."""
    path = _library("_cuda")
    if path is None:
        return "not built"
    if torch.version.cuda is None:
        return "not loaded: this torch is a CPU-only build"
    try:
        torch.ops.load_library(path)
    except (
        OSError
    ) as error:  # e.g. another major version of CUDA; what is missing is kept for the user to read
        return f"not loaded: {error}"
    return "loaded"


_load_cpu()
_CUDA_STATUS = _load_cuda()


def check_device(device: torch.device) -> None:
    """Raise RuntimeError, with the build command, if there are no operators for tensors on `device`."""
    if device.type == "cuda" and _CUDA_STATUS != "loaded":
        raise RuntimeError(
            f"pwlu: no CUDA kernels ({_CUDA_STATUS}). Build them with: PWLU_BUILD_CUDA=1 {_BUILD_COMMAND} "
            "-- or use pwlu.pwlu_reference, which is plain torch."
        )


def build_info() -> dict[str, Any]:
    """What was built and what is in use, as plain values (for records and bug reports).

    Keys: version; torch (the release it was built against); cuda (whether the CUDA library was built), then
    cuda_toolkit and cuda_architectures; cuda_status ("loaded", or why not); cpu_isa (the instruction set in
    use: avx512, avx2 or plain; the environment variable PWLU_CPU_ISA forces one).
    """
    info: dict[str, Any] = {"version": importlib.metadata.version("pwlu-cuda")}
    info.update(json.loads((_FOLDER / "_build_info.json").read_text()))
    info["cuda_status"] = _CUDA_STATUS
    info["cpu_isa"] = torch.ops.pwlu.cpu_isa()
    return info
