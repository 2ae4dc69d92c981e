"""Compile the CUDA kernels for one architecture and record what ptxas says of them; needs nvcc, but no GPU.

python -m pwlu_ext.benchmarks.inspect_kernels --output results/benchmarks/kernels_sm90.json
"""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import torch

from pwlu_ext.benchmarks.measure import environment, write_record
from pwlu_ext.benchmarks.page import Row, kernels_page

SOURCES = Path(__file__).parents[1] / "csrc" / "cuda"
FLAGS = ("-O3", "-std=c++17", "-Xptxas", "-v", "-cubin", "-o", os.devnull)  # but for -v as in setup.py
TYPES = {"f": "float32", "d": "float64", "NS0_4HalfE": "float16", "NS0_8BFloat16E": "bfloat16"}
# A kernel's name, the type of its elements and how many of them it reads at once, as C++ mangles them.
KERNEL = re.compile(rf"_ZN4pwlu4cuda\d+(\w+?)I({'|'.join(TYPES)})(?:Li(\d+)E)?E")
REPORT = re.compile(
    r"Compiling entry function '(\S+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)
# Of a multiprocessor of compute capability 9.0.
REGISTERS, WARPS, WARP = 65536, 64, 32
THREADS, FINISH_THREADS = 256, 512  # of a block


def find_nvcc() -> str:
    """Return where nvcc is; ValueError if it is nowhere."""
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    if nvcc is None:
        raise ValueError("nvcc was not found (neither in CUDA_HOME/bin nor on PATH)")
    return nvcc


def output_of(*command: str | Path) -> str:
    """Return what a program prints; ValueError with it if the program fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


def inspect(architecture: str, pattern: str = "*.cu") -> list[Row]:
    """Return a row for every kernel of the source files that match a pattern.

    Raises:
        ValueError: nvcc is missing or fails.
    """
    nvcc = find_nvcc()
    reports = [
        output_of(nvcc, *FLAGS, f"-arch={architecture}", source) for source in sorted(SOURCES.glob(pattern))
    ]
    rows = [row_of(found) for report in reports for found in REPORT.findall(report)]
    return sorted(rows, key=lambda row: (row["kernel"], row["element"], -row["vector"]))


def row_of(report: tuple[str, ...]) -> Row:
    """Return what ptxas says about one kernel."""
    symbol, stack, stores, loads, registers, more = report
    found = KERNEL.match(symbol)
    if found is None:
        raise ValueError(f"{symbol}: not the name of a kernel that this program knows")
    kernel, element, vector = found.groups()
    shared = re.search(r"(\d+) bytes smem", more)
    return {
        "kernel": kernel,
        "element": TYPES[element],
        "vector": int(vector or 1),
        "registers": int(registers),
        "warps_that_registers_allow": resident_warps(kernel, int(registers)),
        "spill_bytes": int(stores) + int(loads),
        "stack_bytes": int(stack),
        "static_shared_bytes": int(shared[1]) if shared else 0,
    }


def resident_warps(kernel: str, registers: int) -> int:
    """Return how many warps a multiprocessor has registers for, in whole blocks of the usual size."""
    threads = FINISH_THREADS if kernel == "finish" else THREADS
    allocated = -(-registers // 8) * 8 * threads  # registers come in groups of 8
    return min(WARPS, REGISTERS // allocated * threads // WARP)


def main() -> None:
    """Inspect, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="sm_90", help="of the machine code (sm_90)")
    parser.add_argument("--output", type=Path, help="record to write, .json; its page lies beside it")
    arguments = parser.parse_args()
    try:
        rows = inspect(arguments.architecture)
        version = re.search(r"V([\d.]+)", output_of(find_nvcc(), "--version"))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    record = {
        "benchmark": "inspect_kernels",
        "arguments": {"architecture": arguments.architecture, "nvcc": version[1] if version else "unknown"},
        "environment": environment(torch.device("cpu")),
        "sections": {"kernels": rows},
    }
    write_record(arguments.output, record, kernels_page(record))


if __name__ == "__main__":
    main()
