"""Build two libraries of operators on the LibTorch stable ABI: `_cpu`, and `_cuda` where it can be compiled.

They are two because a library linked with CUDA does not load into a torch without it. What is built:

    PWLU_BUILD_CUDA=auto   (default) the CUDA library if nvcc is found and its major version is torch's
    PWLU_BUILD_CUDA=1      the CUDA library, or an error that says what is missing
    PWLU_BUILD_CUDA=0      the CPU library alone

    PWLU_ONNXRUNTIME_INCLUDE=FOLDER   with onnxruntime_c_api.h: a third library, `_onnx`, for ONNX Runtime

No GPU needs to be visible. TORCH_CUDA_ARCH_LIST overrides the architectures. An empty variable is one that is
not set: containers cannot unset what their image sets.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    # gcc 12 takes the intrinsics' "undefined" operands for such uses.
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
    STABLE_ABI,
]
NVCC_FLAGS = ["-O3", "-Xfatbin", "-compress-all", "-Xcompiler", "-fvisibility=hidden"]

ONNX_HEADER = "onnxruntime_c_api.h"

VARIABLES = ("PWLU_BUILD_CUDA", "PWLU_ONNXRUNTIME_INCLUDE", "TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "CC", "CXX")


def drop_empty_variables() -> None:
    """Unset those of `VARIABLES` that are empty; torch and setuptools would take the empty word."""
    for name in VARIABLES:
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)


def versions() -> tuple[str, str]:
    """Return the versions of torch and setuptools; stop, with the command, where they are missing."""
    try:
        import setuptools
        import torch
    except ModuleNotFoundError as error:
        torch_needed, setuptools_needed = (".".join(map(str, v)) for v in (OLDEST_TORCH, OLDEST_SETUPTOOLS))
        raise SystemExit(
            f"pwlu: building needs {error.name}, which {sys.executable} does not have. Run: {sys.executable} "
            f"-m pip install 'torch>={torch_needed}' 'setuptools>={setuptools_needed}' ninja -- or leave out "
            "--no-build-isolation."
        ) from None
    return torch.__version__, setuptools.__version__


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


def check_compiler() -> None:
    """Stop, with a sentence, without the C++ compiler that torch would call."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if shutil.which(compiler) is None:
        raise SystemExit(
            f"pwlu: the C++ compiler {compiler!r} was not found. Install one (Debian, Ubuntu: apt install "
            "g++), or set CXX to one."
        )


def nvcc_version(nvcc: str) -> tuple[int, int]:
    """Return the major and minor version of the toolkit."""
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True)
    release = re.search(r"release (\d+)\.(\d+)", said.stdout)
    if release is None:
        text = (said.stderr or said.stdout).strip()
        raise SystemExit(
            f"pwlu: '{nvcc} --version' names no release: {text!r}. Set CUDA_HOME to a toolkit that works, or "
            "build the CPU library alone with PWLU_BUILD_CUDA=0."
        )
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


def set_architectures(nvcc: str) -> None:
    """Set TORCH_CUDA_ARCH_LIST as torch reads it, or to the default."""
    words = re.split(r"[;,\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", ""))
    asked = ";".join(filter(None, words))
    os.environ["TORCH_CUDA_ARCH_LIST"] = asked or default_architectures(nvcc_version(nvcc))


def check_architectures(nvcc: str, flags_of_torch: Callable[[], list[str]]) -> None:
    """Stop, with a sentence, where torch or nvcc does not know what TORCH_CUDA_ARCH_LIST asks for."""
    # torch would look at them only when all of the CPU library has been compiled.
    asked = os.environ["TORCH_CUDA_ARCH_LIST"]
    remedy = f"Unset it for {default_architectures(nvcc_version(nvcc))}, or name some of these."
    try:
        flags = flags_of_torch()
    except (ValueError, IndexError) as error:
        why = "torch sees no GPU here" if asked == "native" else str(error)
        raise SystemExit(f"pwlu: TORCH_CUDA_ARCH_LIST is {asked!r}: {why}. {remedy}") from None
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout
    known, wanted = (set(re.findall(r"compute_(\d+)", text)) for text in (listed, " ".join(flags)))
    if known and not wanted <= known:
        raise SystemExit(
            f"pwlu: TORCH_CUDA_ARCH_LIST is {asked!r}: {nvcc} does not compile for "
            f"{', '.join(f'sm_{number}' for number in sorted(wanted - known))}. {remedy}"
        )


def why_not_cuda(nvcc: str | None, torch_cuda: str | None) -> str | None:
    """Return a sentence that says why the CUDA library cannot be built here, or None."""
    if nvcc is None:
        home = os.environ.get("CUDA_HOME")
        return f"there is no nvcc in {home}/bin (CUDA_HOME)" if home else "nvcc was not found on PATH"
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


def choose_onnx() -> str | None:
    """Return the folder of ONNX Runtime's header, or None where its library is not wanted."""
    folder = os.environ.get("PWLU_ONNXRUNTIME_INCLUDE")
    if folder is None:
        return None
    folder = os.path.abspath(folder)
    if not os.path.isfile(os.path.join(folder, ONNX_HEADER)):
        raise SystemExit(
            f"pwlu: there is no {ONNX_HEADER} in {folder} (PWLU_ONNXRUNTIME_INCLUDE). Set it to a folder "
            "that has it, of ONNX Runtime 1.17 or newer, or unset it."
        )
    return folder


def prepare_environment(nvcc: str | None) -> None:
    """Set what torch reads when cpp_extension is imported, and what setuptools works on."""
    os.chdir(ROOT)
    # A ninja that pip installed lies beside a Python whose environment need not be activated.
    os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")
    if nvcc is not None:
        os.environ["CUDA_HOME"] = toolkit_folder(nvcc)
        set_architectures(nvcc)
    # What an earlier build left there would be packed again: files that are gone, a CUDA library that is not
    # wanted now. build/temp* stays, so that only changed sources are compiled again.
    for stale in [*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")]:
        shutil.rmtree(stale)


def write_build_info(nvcc: str | None, obstacle: str, torch_version: str, *, onnx: bool) -> None:
    """Write what `pwlu.build_info` will say about this build."""
    info: dict[str, object] = {
        "torch": torch_version,
        "oldest_torch": ".".join(map(str, OLDEST_TORCH)),
        "cuda": nvcc is not None,
        "onnx": onnx,
    }
    if nvcc is None:
        info["why_not_cuda"] = obstacle
    else:
        info["cuda_toolkit"] = ".".join(map(str, nvcc_version(nvcc)))
        info["cuda_architectures"] = os.environ["TORCH_CUDA_ARCH_LIST"].split(";")
    (ROOT / "pwlu" / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")


def sources(*patterns: str) -> list[str]:
    """Return the files below this folder that match."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def headers() -> list[str]:
    """Return what any source may include."""
    return sources("csrc/**/*.h", "csrc/**/*.cuh")


def kernels() -> list[str]:
    """Return the sources of the CPU's kernels, which do not need torch's libraries."""
    return [path for path in sources("csrc/cpu/*.cpp") if not Path(path).name.startswith("launch")]


def wheel_options() -> dict[str, dict[str, str]]:
    """Return what makes one wheel serve all later Pythons, where the Python that builds has that ABI."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return {}  # free-threaded: a wheel for this very Python
    return {"bdist_wheel": {"py_limited_api": "cp310"}}


def cpu_extension() -> Any:
    """Return the operators for torch on a CPU."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "pwlu._cpu",
        sources("csrc/*.cpp", "csrc/cpu/*.cpp"),
        extra_compile_args={"cxx": CXX_FLAGS},
        depends=headers(),
        py_limited_api=True,
    )


def cuda_extension() -> Any:
    """Return the same for GPUs."""
    from torch.utils.cpp_extension import CUDAExtension

    return CUDAExtension(
        "pwlu._cuda",
        sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
        extra_compile_args={"cxx": [*CXX_FLAGS, "-DUSE_CUDA"], "nvcc": NVCC_FLAGS},
        depends=headers(),
        py_limited_api=True,
    )


def onnx_extension(include: str) -> Any:
    """Return the operator for ONNX Runtime, which is not linked with torch or Python."""
    from setuptools import Extension

    return Extension(
        "pwlu._onnx",
        sources("csrc/onnx/*.cpp"),
        include_dirs=[include],
        extra_compile_args={"cxx": CXX_FLAGS},
        depends=headers(),
        language="c++",
        py_limited_api=True,
    )


def extensions(with_cuda: bool, onnx_include: str | None) -> list[Any]:
    """Return what is compiled."""
    wanted = [cpu_extension()]
    if with_cuda:
        wanted.append(cuda_extension())
    if onnx_include is not None:
        wanted.append(onnx_extension(onnx_include))
    return wanted


def build_command() -> Any:
    """Return torch's command, which links the kernels of `_cpu` into `_onnx` too: they are compiled once."""
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def build_extension(self, ext: Any) -> None:
            # A `_cpu` that is up to date does not say that its objects are there. ninja looks at them.
            self.force = True
            if ext.name == "pwlu._onnx":
                ext.extra_objects = self.compiler.object_filenames(kernels(), output_dir=self.build_temp)
            super().build_extension(ext)

    return Build


def main() -> None:
    """Choose what to build, note it for `pwlu.build_info`, and build it."""
    drop_empty_variables()
    torch_version, setuptools_version = versions()
    check_versions(torch_version, setuptools_version)
    check_compiler()

    import setuptools
    import torch

    nvcc, obstacle = choose_cuda(torch.version.cuda)
    include = choose_onnx()
    if nvcc is None:
        print(f"pwlu: building the CPU library alone: {obstacle}")
    else:
        print(f"pwlu: building the CPU and the CUDA library ({nvcc})")
    if include is not None:
        print(f"pwlu: building the library for ONNX Runtime ({include})")
    prepare_environment(nvcc)

    from torch.utils import cpp_extension  # reads the environment

    if nvcc is not None:
        check_architectures(nvcc, cpp_extension._get_cuda_arch_flags)
    write_build_info(nvcc, obstacle, torch_version, onnx=include is not None)
    setuptools.setup(
        ext_modules=extensions(nvcc is not None, include),
        cmdclass={"build_ext": build_command()},
        options=wheel_options(),
    )


if __name__ == "__main__":
    main()
