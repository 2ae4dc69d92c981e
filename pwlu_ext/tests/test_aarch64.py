"""The CPU library's sources compile for aarch64, where the plain kernels are the only ones."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

SOURCES = Path(__file__).parents[1] / "csrc"


def test_cpu_sources_compile_for_aarch64() -> None:
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-g++ (Debian, Ubuntu: apt install g++-aarch64-linux-gnu)")
    includes = [part for folder in include_paths() for part in ("-isystem", folder)]
    flags = [
        "-std=c++20",
        "-fsyntax-only",
        "-fvisibility=hidden",
        "-Wall",
        "-Werror",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
    ]

    def check(source: Path) -> None:
        done = subprocess.run([compiler, *flags, *includes, source], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    sources = [*SOURCES.glob("*.cpp"), *SOURCES.glob("cpu/*.cpp")]
    assert len(sources) > 3
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(check, sources))
