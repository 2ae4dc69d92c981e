"""The CUDA kernels themselves, compiled as C++ and run on the CPU (see cuda_emulation/)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "cuda_emulation"


@pytest.mark.skipif(sys.platform == "win32", reason="the emulation needs ucontext, which is POSIX")
@pytest.mark.parametrize("name", ["emulation_test", "folded_test", "normalized_test"])
def test_kernels_equal_the_specification_in_emulation(name: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler (neither CXX nor c++)")
    program = tmp_path / name
    # longjmp between stacks is what the emulation is made of, and what _FORTIFY_SOURCE takes for an error.
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-ffp-contract=off", "-w"]
    source = SOURCES / f"{name}.cpp"
    command = [compiler, *flags, "-DPWLU_EMULATION", f"-I{SOURCES}", source, "-o", program]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("0 failures\n")
