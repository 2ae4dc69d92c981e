"""Where a run came from: code, settings, machine and versions."""

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pwlu
from engine.processes.distributed import available_cores

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pycocotools", "pwlu-cuda")


def describe_start(
    *, step: int, world_size: int, device: torch.device, components: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what one start of a run (the first, or one that resumes at `step`) ran on, as plain values.

    `components` are facts about what only this kind of run uses.
    """
    return {
        "step": step,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "code": describe_code(Path(__file__).parent),
        "world_size": world_size,
        "hardware": describe_hardware(device),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "pwlu": pwlu.build_info(),
        **components,
    }


def describe_code(folder: Path) -> dict[str, Any]:
    """Return the commit of a folder's repository and whether files differ from it; both None without git.

    What programs write into the repository's results/ does not count, but paper.csv does, which they read.
    In a copy that is no repository, the environment variable PWLU_COMMIT names the commit.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": os.environ.get("PWLU_COMMIT"), "uncommitted_changes": None}
    watched = ([":(top)", ":(top,exclude)results"], [":(top)results/paper.csv"])
    status = [_git(folder, "status", "--porcelain", "--", *paths) for paths in watched]
    return {"commit": commit, "uncommitted_changes": any(status)}


def short_commit(code: Mapping[str, Any], digits: int = 10) -> str:
    """Return what `describe_code` gave in a word: the first digits, and `+changes` if files differed."""
    return (code["commit"] or "unknown")[:digits] + "+changes" * bool(code["uncommitted_changes"])


def describe_package(name: str) -> dict[str, Any]:
    """Return the name, version and, where it runs from a clone of its repository, commit of a package."""
    package = importlib.import_module(name)
    file = Path(package.__file__ or "")
    is_clone = _git(file.parent, "ls-files", "--error-unmatch", file.name) is not None
    code = describe_code(file.parent) if is_clone else {}
    return {"name": name, "version": getattr(package, "__version__", None), **code}


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Return the kind of machine, without its name."""
    hardware: dict[str, Any] = {
        "device": device.type,
        "cpu": _cpu_model(),
        "cpu_cores": available_cores(),
        "threads_per_process": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        hardware |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "gpus_per_machine": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return hardware


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository: installed from an archive
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
