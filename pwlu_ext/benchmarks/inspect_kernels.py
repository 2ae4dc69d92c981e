"""Compiles the CUDA kernels for one architecture and records what the compiler made of them; needs no GPU.

    python pwlu_ext/benchmarks/inspect_kernels.py --output results/benchmarks/kernels_sm90.json

Registers, spills, stack and shared memory are those of ptxas; accesses and instructions are counted in the
machine code that cuobjdump prints. A table is written beside the record. nvcc is the one of CUDA_HOME or on
PATH; cuobjdump may also be the one that Triton brings.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from measure import record_path, short, write_record
from sass import Code, accesses, global_bytes_read, read_sass, slow_unit
from table import table

SOURCES = Path(__file__).parents[1] / "csrc" / "cuda"
FILES = tuple(sorted(path.name for path in SOURCES.glob("*.cu")))
# As setup.py has them, but for one architecture.
FLAGS = ("-O3", "-std=c++17", "-Xptxas", "-v", "-cubin")
_KERNEL = re.compile(r"^_ZN4pwlu4cuda\d+(\w+?)I(f|d|NS0_4HalfE|NS0_8BFloat16E)(?:Li(\d+)E)?E")
_TYPES = {"f": "float32", "d": "float64", "NS0_4HalfE": "float16", "NS0_8BFloat16E": "bfloat16"}
_ELEMENT_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
_REPORT = re.compile(
    r"Compiling entry function '(\S+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)
# Of a multiprocessor of compute capability 9.0.
REGISTERS, WARPS, WARP = 65536, 64, 32
THREADS, FINISH_THREADS = 256, 512  # of a block

Row = dict[str, Any]


def find_tools() -> tuple[str, str]:
    """Where nvcc and cuobjdump are; ValueError says which is missing."""
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    if nvcc is None:
        raise ValueError("nvcc was not found (neither in CUDA_HOME/bin nor on PATH)")
    triton = importlib.util.find_spec("triton")
    folders = [str(Path(nvcc).parent), os.environ.get("PATH", "")]
    if triton is not None and triton.origin:
        folders.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    cuobjdump = shutil.which("cuobjdump", path=os.pathsep.join(folders))
    if cuobjdump is None:
        raise ValueError(
            "cuobjdump was not found (neither beside nvcc, nor on PATH, nor in Triton's package)"
        )
    return nvcc, cuobjdump


def output_of(*command: str) -> str:
    """What a program prints; ValueError with it if the program fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


def inspect(architecture: str) -> list[Row]:
    """A row for every kernel."""
    nvcc, cuobjdump = find_tools()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            cubin = os.path.join(folder, f"{name}.cubin")
            report = output_of(nvcc, *FLAGS, f"-arch={architecture}", str(SOURCES / name), "-o", cubin)
            codes = {code.name: code for code in read_sass(output_of(cuobjdump, "-sass", cubin))}
            rows += [row_of(found, codes) for found in _REPORT.findall(report)]
    return sorted(rows, key=lambda row: (row["kernel"], row["element"], -row["vector"]))


def row_of(report: tuple[str, ...], codes: dict[str, Code]) -> Row:
    """What ptxas and the machine code say about one kernel."""
    symbol, stack, stores, loads, registers, more = report
    kernel, element, vector = name_of(symbol)
    shared = re.search(r"(\d+) bytes smem", more)
    code = codes[symbol]
    return {
        "kernel": kernel,
        "element": element,
        "vector": vector,
        "registers": int(registers),
        "stack_bytes": int(stack),
        "spill_store_bytes": int(stores),
        "spill_load_bytes": int(loads),
        "static_shared_bytes": int(shared.group(1)) if shared else 0,
        "warps_that_registers_allow": warps(kernel, int(registers)),
        "local_memory_instructions": sum(i.name in ("LDL", "STL") for i in code.instructions),
        "instructions": len(code.instructions),
        "main_loop": main_loop(code, element, kernel),
    }


def name_of(symbol: str) -> tuple[str, str, int]:
    """A kernel's name, its element type and elements per access, from the compiler's name for it."""
    found = _KERNEL.match(symbol)
    if found is None:
        raise ValueError(f"{symbol}: not the name of a kernel that this program knows")
    name, element, vector = found.groups()
    return name, _TYPES[element], int(vector or 1)


def warps(kernel: str, registers: int) -> int:
    """Warps of a multiprocessor that have room for their registers, in whole blocks.

    Registers come in groups of 8. Blocks are as large as csrc/cuda makes them where shared memory suffices.
    """
    threads = FINISH_THREADS if kernel == "finish" else THREADS
    blocks = REGISTERS // (-(-registers // 8) * 8 * threads)
    return min(WARPS, blocks * threads // WARP)


def main_loop(code: Code, element: str, kernel: str) -> Row:
    """One iteration of the loop over x: its accesses, and how many instructions an element takes."""
    loop = code.main_loop()
    if kernel == "finish":  # it has no element of x
        return {"global_loads": accesses(loop, "LDG"), "instructions": len(loop)}
    tensors = 2 if kernel.startswith("backward") else 1
    elements = global_bytes_read(loop) / tensors / _ELEMENT_BYTES[element]
    return {
        "global_loads": accesses(loop, "LDG"),
        "global_stores": accesses(loop, "STG"),
        "shared_accesses": sum(i.name in ("LDS", "STS") for i in loop),
        "instructions": len(loop),
        "elements": elements,
        "instructions_per_element": round(len(loop) / elements, 2) if elements else None,
        "slow_unit_per_element": round(slow_unit(loop) / elements, 2) if elements else None,
    }


def kernels_table(record: Row) -> str:
    """The whole file."""
    environment, arguments = record["environment"], record["arguments"]
    head = [
        "kernel",
        "elements per access",
        "registers",
        "warps they allow",
        "spills (bytes)",
        "stack (bytes)",
    ]
    head += ["LDL, STL", "loads in the main loop", "stores", "LDS, STS", "instructions / element"]
    head += ["of them on the slow unit"]
    lines = [
        "<!-- Generated by pwlu_ext/benchmarks/inspect_kernels.py from the record beside it. -->",
        f"# What nvcc makes of the kernels for {arguments['architecture']}",
        "",
        f"nvcc {arguments['nvcc']}, commit {short(environment['commit'])}, {environment['date']}. Nothing "
        "here was measured on a GPU. Loads and stores are those of global memory in the loop that reads most "
        "of it, `bytes x how many` per thread; instructions are those of an iteration without rare cases. "
        "[What follows from it](../../pwlu_ext/benchmarks/NOTES.md).",
        "",
        *table(head, [line(row) for row in record["sections"]["kernels"]]),
    ]
    return "\n".join(lines) + "\n"


def line(row: Row) -> list[str]:
    """The cells of one kernel."""
    loop = row["main_loop"]
    return [
        f"{row['kernel']}, {row['element']}",
        f"{row['vector']}",
        f"{row['registers']}",
        f"{row['warps_that_registers_allow']}",
        f"{row['spill_store_bytes']} + {row['spill_load_bytes']}",
        f"{row['stack_bytes']}",
        f"{row['local_memory_instructions']}",
        widths(loop["global_loads"]),
        widths(loop.get("global_stores", {})),
        f"{loop.get('shared_accesses', '')}",
        f"{loop.get('instructions_per_element') or ''}",
        f"{loop.get('slow_unit_per_element') or ''}",
    ]


def widths(counted: dict[str, int]) -> str:
    """`16 x 4`."""
    return ", ".join(f"{size} x {number}" for size, number in counted.items())


def main() -> None:
    """Inspect, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="sm_90", help="of the machine code (sm_90)")
    parser.add_argument(
        "--output", type=record_path, help="JSON record to write; its table is written beside it"
    )
    arguments = parser.parse_args()
    try:
        rows = inspect(arguments.architecture)
        release = re.search(r"V([\d.]+)", output_of(find_tools()[0], "--version"))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    settings = {"architecture": arguments.architecture, "nvcc": release.group(1) if release else "unknown"}
    record = write_record(arguments.output, "inspect_kernels", settings, {"kernels": rows})
    text = kernels_table(record)
    print(text)
    if arguments.output is not None:
        arguments.output.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
