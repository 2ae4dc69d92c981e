"""Build two libraries of operators on the LibTorch stable ABI: `_cpu`, and `_cuda` where it can be compiled.

They are two because a library linked with CUDA does not load into a torch without it. What is built:

    PWLU_BUILD_CUDA=auto   (default) the CUDA library if nvcc is found and its major version is torch's
    PWLU_BUILD_CUDA=1      the CUDA library, or an error that says what is missing
    PWLU_BUILD_CUDA=0      the CPU library alone

No GPU needs to be visible. TORCH_CUDA_ARCH_LIST overrides the architectures.
"""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.resolve()
# As in pyproject.toml, whose versions pip looks at only where it builds in isolation.
OLDEST_SETUPTOOLS = (77,)
OLDEST_TORCH = (2, 10)
# torch's headers spell a version with two hexadecimal digits for each number.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x{:02x}{:02x}000000000000".format(*OLDEST_TORCH)
CXX_FLAGS = [
    "-O3",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-unknown-warning-option",
    "-Wno-maybe-uninitialized",  # gcc 12 takes the intrinsics' "undefined" operands for such uses
    STABLE_ABI,
]
NVCC_FLAGS = ["-O3", "-Xfatbin", "-compress-all", "-Xcompiler", "-fvisibility=hidden"]


def check_versions(torch: str, setuptools: str) -> None:
    """Stop, with a sentence, where torch lacks the ABI or setuptools cannot read pyproject.toml."""
    for name, found, oldest in (
        ("torch", torch, OLDEST_TORCH),
        ("setuptools", setuptools, OLDEST_SETUPTOOLS),
    ):
        if tuple(map(int, found.split(".")[: len(oldest)])) < oldest:
            needed = f"{name}>={'.'.join(map(str, oldest))}"
            raise SystemExit(
                f"pwlu: {name} {found} is too old: building needs {needed}. Run: pip install '{needed}'"
            )


def nvcc_version(nvcc: str) -> tuple[int, int]:
    """Return the major and minor version of the toolkit."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", text)
    if release is None:
        raise SystemExit(f"pwlu: cannot read a version from '{nvcc} --version': {text!r}")
    return int(release[1]), int(release[2])


def toolkit_folder(nvcc: str) -> str:
    """Return the folder that nvcc works from: the one on PATH may be a wrapper that lies elsewhere."""
    plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.*)$", plan.stderr, re.MULTILINE)
    if top is None:
        raise SystemExit(f"pwlu: '{nvcc} --dryrun' does not name its toolkit folder. Set CUDA_HOME to it.")
    return os.path.realpath(top[1].strip())


def default_architectures(version: tuple[int, int]) -> str:
    """Return Volta to Blackwell, as far as the toolkit knows them (12.8 brought sm_100, 13 dropped sm_70)."""
    oldest = "7.5" if version >= (13, 0) else "7.0;7.5"
    newest = "9.0;10.0+PTX" if version >= (12, 8) else "9.0+PTX"
    return f"{oldest};8.0;{newest}"


def why_not_cuda(nvcc: str | None, torch_cuda: str | None) -> str | None:
    """Return a sentence that says why the CUDA library cannot be built here, or None."""
    if nvcc is None:
        return "nvcc was not found (neither in CUDA_HOME/bin nor on PATH)"
    if torch_cuda is None:
        return "this torch is a build without CUDA"
    major, minor = nvcc_version(nvcc)
    if major != int(torch_cuda.split(".")[0]):
        return f"nvcc is CUDA {major}.{minor}, but torch was built with CUDA {torch_cuda}"
    return None


def choose_cuda(torch_cuda: str | None) -> tuple[str | None, str]:
    """Return the nvcc to build with, or None for the CPU library alone; and why there is none."""
    choice = os.environ.get("PWLU_BUILD_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"pwlu: PWLU_BUILD_CUDA is {choice!r}, expected auto, 1 or 0.")
    if choice == "0":
        return None, "PWLU_BUILD_CUDA was 0"
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    obstacle = why_not_cuda(nvcc, torch_cuda)
    if obstacle is not None and choice == "1":
        raise SystemExit(f"pwlu: PWLU_BUILD_CUDA=1, but {obstacle}.")
    return (nvcc, "") if obstacle is None else (None, obstacle)


def prepare_environment(nvcc: str | None) -> None:
    """Set what torch reads when cpp_extension is imported, and what setuptools works on."""
    os.chdir(ROOT)
    # A ninja that pip installed lies beside a Python whose environment need not be activated.
    os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")
    if nvcc is not None:
        os.environ["CUDA_HOME"] = toolkit_folder(nvcc)
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", default_architectures(nvcc_version(nvcc)))
    # What an earlier build left there would be packed again: files that are gone, a CUDA library that is not
    # wanted now. build/temp* stays, so that only changed sources are compiled again.
    for stale in [*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")]:
        shutil.rmtree(stale)


def write_build_info(nvcc: str | None, obstacle: str, torch_version: str) -> None:
    """Write what `pwlu.build_info` will say about this build."""
    info: dict[str, object] = {
        "torch": torch_version,
        "oldest_torch": ".".join(map(str, OLDEST_TORCH)),
        "cuda": nvcc is not None,
    }
    if nvcc is None:
        info["why_not_cuda"] = obstacle
    else:
        info["cuda_toolkit"] = ".".join(map(str, nvcc_version(nvcc)))
        info["cuda_architectures"] = re.split(r"[;\s]+", os.environ["TORCH_CUDA_ARCH_LIST"].strip())
    (ROOT / "pwlu" / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")


def sources(*patterns: str) -> list[str]:
    """Return the files below this folder that match."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def main() -> None:
    """Choose what to build, note it for `pwlu.build_info`, and build it."""
    import setuptools
    import torch

    check_versions(torch.__version__, setuptools.__version__)
    nvcc, obstacle = choose_cuda(torch.version.cuda)
    if nvcc is None:
        print(f"pwlu: building the CPU library alone: {obstacle}")
    else:
        print(f"pwlu: building the CPU and the CUDA library ({nvcc})")
    prepare_environment(nvcc)
    write_build_info(nvcc, obstacle, torch.__version__)

    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # reads the environment

    headers = sources("csrc/**/*.h", "csrc/**/*.cuh")
    extensions = [
        CppExtension(
            "pwlu._cpu",
            sources("csrc/*.cpp", "csrc/cpu/*.cpp"),
            extra_compile_args={"cxx": CXX_FLAGS},
            depends=headers,
            py_limited_api=True,
        )
    ]
    if nvcc is not None:
        extensions.append(
            CUDAExtension(
                "pwlu._cuda",
                sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
                extra_compile_args={"cxx": [*CXX_FLAGS, "-DUSE_CUDA"], "nvcc": NVCC_FLAGS},
                depends=headers,
                py_limited_api=True,
            )
        )
    setuptools.setup(
        ext_modules=extensions,
        cmdclass={"build_ext": BuildExtension},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
