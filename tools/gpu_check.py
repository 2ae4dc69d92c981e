"""Check and measure everything that needs a GPU, in less than ten minutes and without a network.

    scripts/gpu_check.sh                                    # writes results/gpu/<the GPU's name>.json, .md
    scripts/gpu_check.sh --dry-run --output /tmp/gpu.json   # what a CPU can do of it, with tiny sizes

Builds pwlu from its sources into a folder of its own, and runs with it, one after the other: the tests for a
GPU, the kernels' benchmark, the training step, Table 4 and compute-sanitizer. A step that fails, or is not
done within its time, is recorded, and the next one runs. Exits with 1 if any did not pass.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine.files import write_text_atomically
from tools.gpu_page import gpu_page
from tools.gpu_run import Outcome, commit_here, ended_by_sigterm, find_program, run_step
from tools.gpu_steps import ROOT, Step, all_steps

PACKAGES = {"yaml": "PyYAML", "PIL": "pillow"}  # of modules that have another name
PROJECT = ROOT / "pwlu_ext" / "pyproject.toml"
DRY_RUN = Path("runs/gpu_check_dry_run.json")
SOURCES_ONLY = shutil.ignore_patterns(
    "build", "*.so", "*.egg-info", "__pycache__", "_build_info.json", "tests"
)


def main(command: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    arguments = parser().parse_args(command)
    try:
        gpu = {} if arguments.dry_run else find_gpu()
        steps = chosen(all_steps(gpu.get("compute_capability", "")), arguments.steps)
        absent = missing(steps, arguments.dry_run)
        if absent and not arguments.skip_missing:
            raise ValueError(sentence(absent))
        output = checked_output(arguments.output or (default_output(gpu) if gpu else ROOT / DRY_RUN))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = start_of_record(arguments, gpu)
    with ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        shutil.copytree(ROOT / "pwlu_ext", Path(folder) / "source", ignore=SOURCES_ONLY)
        run_all(steps, absent, Path(folder), arguments, record, output)
    print(f"record: {output}", verdict(record["steps"]), sep="\n")
    return int(any(step["bad"] for step in record["steps"]))


def verdict(steps: Sequence[dict[str, Any]]) -> str:
    """Return which steps did not pass, and which did not run for a reason that fails nothing."""
    bad = [step["name"] for step in steps if step["bad"]]
    left_out = [step["name"] for step in steps if step["status"] == "not run" and not step["bad"]]
    told = f"not passed: {', '.join(bad)}" if bad else "all that ran is well" if left_out else "all is well"
    return f"{told}; not run: {', '.join(left_out)}" if left_out else told


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--output", type=Path, metavar="FILE.json", help="record; its page ends in .md")
    add("--dry-run", action="store_true", help="without a GPU: tiny sizes, clocks of the CPU, no targets")
    add("--seconds", type=int, default=570, help="of all steps together (570)")
    names = [step.name for step in all_steps("")]
    add("--steps", nargs="+", choices=names, metavar="STEP", help=f"these alone, of {' '.join(names)}")
    add("--skip-missing", action="store_true", help="leave out steps whose packages or programs are not here")
    add("--commit", default=os.environ.get("PWLU_COMMIT", ""), help="of this copy, if it is no repository")
    return result


def chosen(steps: tuple[Step, ...], names: Sequence[str] | None) -> list[Step]:
    """Return the steps of these names, in their own order; all without names."""
    return [step for step in steps if names is None or step.name in names]


def find_gpu() -> dict[str, Any]:
    """Return the GPU's name, compute capability and torch's CUDA; ValueError where there is none."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError("torch is not installed for this Python; PYTHON=... names another one")
    import torch

    if not torch.cuda.is_available():
        raise ValueError("torch finds no usable GPU; --dry-run does what a CPU can do of it")
    major, minor = torch.cuda.get_device_capability()
    name, cuda = torch.cuda.get_device_name(), torch.version.cuda
    return {"name": name, "compute_capability": f"{major}.{minor}", "torch_cuda": cuda}


def missing(steps: Sequence[Step], dry_run: bool) -> dict[str, list[str]]:
    """Return what is not installed, by the step that needs it."""
    found: dict[str, list[str]] = {}
    for step in steps:
        needs = [need for need in map(absent_package, step.modules) if need]
        if step.name == "build":
            compilers = [os.environ.get("CXX", "c++"), *([] if dry_run else ["nvcc"])]
            needs += [program for program in compilers if not find_program(program)]
        if step.program and not dry_run and not find_program(step.program):
            needs.append(step.program)
        if needs:
            found[step.name] = needs
    return found


def absent_package(module: str) -> str:
    """Return the package of a module that is not installed or older than a build needs, else nothing."""
    name = PACKAGES.get(module, module)
    if importlib.util.find_spec(module) is None:
        return name
    oldest = build_requirements().get(name)
    if oldest is None:
        return ""
    version = importlib.metadata.version(name)
    return "" if numbers(version) >= numbers(oldest) else f"{name}>={oldest} ({version} is installed)"


def build_requirements() -> dict[str, str]:
    """Return the oldest versions with which pwlu can be built, by package: pyproject.toml states them."""
    # No tomllib: Python 3.10 has none.
    stated = re.search(r"^requires = \[(.*?)\]", PROJECT.read_text(), re.MULTILINE | re.DOTALL)
    if stated is None:
        raise ValueError(f"{PROJECT}: no line begins with `requires = [`; expected one, for the build")
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', stated[1]))


def numbers(version: str) -> tuple[int, ...]:
    """Return (77, 0, 3) of 77.0.3, without what follows the dotted numbers."""
    found = re.match(r"[\d.]*\d", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def sentence(absent: dict[str, list[str]]) -> str:
    """Return what is missing, for which steps, and what to do."""
    steps = "; ".join(f"{', '.join(needs)} (for {step})" for step, needs in absent.items())
    return (
        f"missing here: {steps}. Install it (requirements.txt and requirements-dev.txt have the versions), "
        "or give --skip-missing to leave these steps out"
    )


def default_output(gpu: dict[str, Any]) -> Path:
    """Return results/gpu/nvidia_h200.json."""
    return ROOT / "results" / "gpu" / f"{re.sub(r'[^a-z0-9]+', '_', gpu['name'].lower())}.json"


def checked_output(path: Path) -> Path:
    """Return the path, its folder made; ValueError if it cannot be, or the page would replace the record."""
    if path.suffix != ".json":
        raise ValueError(f"--output: {path}; expected a name that ends in .json (its page ends in .md)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output: {path}: its folder cannot be made: {error}") from error
    return path


def start_of_record(arguments: argparse.Namespace, gpu: dict[str, Any]) -> dict[str, Any]:
    """Return the record before any step."""
    return {
        "benchmark": "gpu_check",
        "dry_run": arguments.dry_run,
        "commit": arguments.commit or None,
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "cpu_cores": os.cpu_count(),
        "gpu": gpu,
        "steps": [],
    }


def run_all(
    steps: Sequence[Step],
    absent: dict[str, list[str]],
    folder: Path,
    arguments: argparse.Namespace,
    record: dict[str, Any],
    output: Path,
) -> None:
    """Run the steps one after the other; the record and its page are written after each of them."""
    began = time.monotonic()
    for step in steps:
        left_s = arguments.seconds - (time.monotonic() - began)
        if step.name in absent:
            outcome = Outcome("not run", reason=f"missing: {', '.join(absent[step.name])}")
        elif step.name != "build" and any(s["name"] == "build" and s["bad"] for s in record["steps"]):
            outcome = Outcome("not run", reason="pwlu was not built", bad=True)
        elif left_s < 5:
            outcome = Outcome("not run", reason="no time was left", bad=True)
        else:
            outcome = run_step(step, folder, left_s, arguments.dry_run, arguments.commit)
        if not record["steps"] and record["commit"] is None:  # now that pwlu has been built
            record["commit"] = commit_here(folder)
        record["steps"].append({"name": step.name, **outcome.described()})
        print(f"{step.name}: {outcome.status}{outcome.reason and ', ' + outcome.reason}", flush=True)
        write_text_atomically(output, json.dumps(record, indent=1) + "\n")
        write_text_atomically(output.with_suffix(".md"), gpu_page(record))


if __name__ == "__main__":
    sys.exit(main())
