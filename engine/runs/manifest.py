"""Where a run came from: code, settings, machine and versions."""

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pwlu
from engine.processes.distributed import available_cores
from engine.records.console import warn_first_time

PROJECT = Path(__file__).parents[2]  # the folder of train_imagenet.py
_GIT_PLACES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "pycocotools", "pwlu-cuda")


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
        "code": describe_code(),
        "world_size": world_size,
        "hardware": describe_hardware(device),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "pwlu": pwlu.build_info(),
        **components,
    }


def describe_code(root: Path = PROJECT) -> dict[str, Any]:
    """Return the commit of the code in the folder `root`, and whether files differ from it; None if unknown.

    A repository counts whose top folder is `root`: one that a copy lies in has other commits. PWLU_COMMIT in
    the environment names the commit of a copy, and wins. That there is no commit is a warning.
    """
    named = os.environ.get("PWLU_COMMIT", "").strip().lower()
    if named and not re.fullmatch("[0-9a-f]{4,64}", named):
        _warn_of_code(root, f"PWLU_COMMIT is {named!r}, which is left out; expected the digits of a commit")
        named = ""
    try:
        code = _state_of_repository(root)
    except LookupError as error:
        if not named:
            remedy = "the environment variable PWLU_COMMIT may name it"
            _warn_of_code(root, f"no commit is recorded with the results: {error}; {remedy}")
        return {"commit": named or None, "uncommitted_changes": None}
    if code["commit"].startswith(named):
        return code
    found = f"the repository {root} is at {code['commit']}"
    _warn_of_code(root, f"PWLU_COMMIT is {named}, which is recorded with the results, but {found}")
    return {"commit": named, "uncommitted_changes": None}


def _state_of_repository(root: Path) -> dict[str, Any]:
    """Return what `describe_code` does of a repository. Raises LookupError with the reason.

    What programs write into its results/ does not count, but paper.csv does, which they read.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        raise LookupError(f"{root} is no repository itself, but lies in that of {top or 'a bare one'}")
    commit = _git(root, "-c", "log.showSignature=false", "log", "-1", "--format=%H")
    watched = ([":(top)", ":(top,exclude)results"], [":(top)results/paper.csv"])
    try:
        status = [_git(root, "status", "--porcelain", "--untracked-files", "--", *paths) for paths in watched]
    except LookupError as error:
        _warn_of_code(root, f"whether files of {root} differ from commit {commit} is not recorded: {error}")
        return {"commit": commit, "uncommitted_changes": None}
    return {"commit": commit, "uncommitted_changes": any(status)}


def _warn_of_code(root: Path, text: str) -> None:
    warn_first_time(f"code in {root}", text)  # tools record it with every picture


def short_commit(code: Mapping[str, Any], digits: int = 10) -> str:
    """Return what `describe_code` gave in a word: the first digits, and `+changes` if files differed."""
    return (code["commit"] or "unknown")[:digits] + "+changes" * bool(code["uncommitted_changes"])


def describe_package(name: str) -> dict[str, Any]:
    """Return the name, version and, where it runs from a clone of its repository, commit of a package."""
    package = importlib.import_module(name)
    described = {"name": name, "version": getattr(package, "__version__", None)}
    root = Path(package.__file__ or "").parent.parent
    if not (root / ".git").exists():
        return described
    try:
        return described | _state_of_repository(root)
    except LookupError as error:
        _warn_of_code(root, f"no commit of {name} is recorded: {error}")
        return described | {"commit": None, "uncommitted_changes": None}


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


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints. Raises LookupError with git's own sentence."""
    # A hook or another program may point git to its own repository.
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    except OSError as error:
        raise LookupError(f"git cannot be run ({error.strerror})") from error
    if answer.returncode != 0:
        raise LookupError(f"git says: {' '.join(answer.stderr.split())}")
    return answer.stdout.removesuffix("\n")


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
