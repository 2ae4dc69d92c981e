"""Interleaved timing and the record that goes with every number."""

import json
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
    """The commit this file is at, with "+changes" if the tree differs from it elsewhere than in results/."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True).stdout.strip()

    return (git("rev-parse", "HEAD") or "unknown") + (
        "+changes" if git("status", "--porcelain", "--", ":(top)", ":(top,exclude)results") else ""
    )


def environment() -> dict[str, Any]:
    """Where and with what a measurement was made."""
    return {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pwlu": pwlu.build_info(),
    }


def write_record(
    path: Path | None, name: str, arguments: dict[str, Any], sections: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """One measurement with its provenance; written as JSON to `path` unless that is None."""
    record = {
        "benchmark": name,
        "arguments": arguments,
        "environment": environment(),
        "sections": sections,
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"record: {path}")
    return record
