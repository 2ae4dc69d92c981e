"""Interleaved timing and the record that goes with every number."""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import pwlu


def best_times(rivals: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each rival in seconds, over `rounds` rounds in which every rival runs once.

    Interleaving makes a disturbance of the machine hit all of them; the best of many removes it.
    """
    best = dict.fromkeys(rivals, float("inf"))
    for call in rivals.values():
        call()
    for _ in range(rounds):
        for name, call in rivals.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
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


def write_record(path: Path | None, name: str, arguments: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write one measurement as JSON to `path`; nothing if that is None."""
    if path is None:
        return
    record = {"benchmark": name, "arguments": arguments, "environment": environment(), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {path}")
