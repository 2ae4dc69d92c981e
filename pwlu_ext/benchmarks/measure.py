"""Interleaved timing and the record that goes with every number."""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

import pwlu

Key = TypeVar("Key")


def best_times(rivals: Mapping[Key, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[Key, float]:
    """The shortest time of each rival in seconds, over `rounds` rounds in which every rival takes its turn.

    Interleaving makes a disturbance of the machine hit all of them; the best of many removes it. A turn is a
    call for the caches and `repeats` timed ones (several for what is too short for the clock).
    """
    best = dict.fromkeys(rivals, float("inf"))
    for _ in range(rounds):
        for name, call in rivals.items():
            call()  # finds its tensors where the call before it left them, as far as they fit the caches
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats)
    return best


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit this file is at, with "+changes" if the tree differs from it elsewhere than in results/.

    Where there is no repository (a copy on another machine), what the environment variable PWLU_COMMIT says.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
        except OSError:  # no git
            return ""
        return done.stdout.strip()

    return (git("rev-parse", "HEAD") or os.environ.get("PWLU_COMMIT", "unknown")) + (
        "+changes" if git("status", "--porcelain", "--", ":(top)", ":(top,exclude)results") else ""
    )


def short(commit: str) -> str:
    """Twelve digits of what `commit` gave, and its "+changes" if it has that: `0123456789ab+changes`."""
    digits, plus, changes = commit.partition("+")
    return f"{digits[:12]}{plus}{changes}"


def record_path(text: str) -> Path:
    """A file of the command line for a record; its table, beside it, has the suffix .md."""
    path = Path(text)
    if path.suffix != ".json":
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .json")
    return path


def gpu(device: torch.device) -> dict[str, Any]:
    """What a GPU is, as far as the times of kernels depend on it."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(properties.L2_cache_size / 2**20, 1),
        "cuda": torch.version.cuda,
    }


def environment(device: str = "cpu") -> dict[str, Any]:
    """Where and with what a measurement was made."""
    return {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        **(gpu(torch.device(device)) if device != "cpu" else {}),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pwlu": pwlu.build_info(),
    }


def write_record(
    path: Path | None,
    name: str,
    arguments: dict[str, Any],
    sections: dict[str, list[dict[str, Any]]],
    device: str = "cpu",
) -> dict[str, Any]:
    """One measurement with its provenance; written as JSON to `path` unless that is None."""
    record = {
        "benchmark": name,
        "arguments": arguments,
        "environment": environment(device),
        "sections": sections,
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"record: {path}")
    return record
