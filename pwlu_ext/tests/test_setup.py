"""What setup.py decides to build, here and on machines that are pretended."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import setuptools
import torch
from torch.utils import cpp_extension

from pwlu import build_info

EXTENSION = Path(__file__).parents[1]

Start = Callable[[], dict[str, Any]]


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pwlu_setup", EXTENSION / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def started(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs setup.py as far as setuptools; returns what setuptools gets."""
    arguments: dict[str, Any] = {}
    (tmp_path / "pwlu").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the build changes it

    def start() -> dict[str, Any]:
        setup.main()
        return arguments

    return start


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The compiler of a CUDA 12.8, which can say its version and its folder, and nothing else."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        '--version) echo "Cuda compilation tools, release 12.8, V12.8.93" ;;\n'
        '--list-gpu-arch) echo "compute_70 compute_75 compute_80 compute_90 compute_100 compute_120" ;;\n'
        f'--dryrun) echo "#$ TOP={tmp_path}/bin/.." >&2 ;;\n'
        "esac\n"
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("PWLU_BUILD_CUDA", raising=False)
    return nvcc


def test_cuda_is_built_where_it_can_be(setup: ModuleType) -> None:
    nvcc, obstacle = setup.choose_cuda(torch.version.cuda)
    if nvcc is None:
        pytest.skip(obstacle)
    info = build_info()
    assert info["cuda"], "nvcc is here, but pwlu was built without CUDA: build it again, or PWLU_BUILD_CUDA=0"
    assert info["cuda_status"] == "loaded" and info["cuda_architectures"]
    for name in ("pwlu::forward", "pwlu::backward", "pwlu::folded"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"), name


@pytest.mark.parametrize(
    ("torch_version", "setuptools_version", "sentence"),
    [
        ("1.13.1", "80.0", r"torch 1\.13\.1 is too old.*torch>=2\.10"),
        ("2.9.0a0+git1234", "80.0", r"torch 2\.9\.0a0\+git1234 is too old.*torch>=2\.10"),
        ("2.10.0", "65.5.0", r"setuptools 65\.5\.0 is too old.*setuptools>=77"),
    ],
)
def test_old_versions_are_an_error(
    setup: ModuleType, torch_version: str, setuptools_version: str, sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        setup.check_versions(torch_version, setuptools_version)


@pytest.mark.parametrize("version", ["2.10.0a0+b4e4ee8", "2.14.1+cu130", "3.0.0"])
def test_versions_that_will_do(setup: ModuleType, version: str) -> None:
    setup.check_versions(version, "77.0.3")


def test_a_build_against_an_old_torch_stops_before_the_compiler(tmp_path: Path) -> None:
    for name, version in (("torch", "2.9.1"), ("setuptools", "80.0.0")):
        (tmp_path / f"{name}.py").write_text(f'__version__ = "{version}"\n')
    command = [sys.executable, EXTENSION / "setup.py", "build"]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    build = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert build.returncode == 1
    assert build.stderr.startswith("pwlu: torch 2.9.1 is too old") and build.stdout == ""


def test_the_oldest_versions_are_those_of_pyproject(setup: ModuleType) -> None:
    text = (EXTENSION / "pyproject.toml").read_text()
    oldest = ".".join(map(str, setup.OLDEST_TORCH))
    assert re.findall(r'"torch>=([\d.]+)"', text) == [oldest] * 2
    assert re.findall(r'"setuptools>=(\d+)"', text) == [str(setup.OLDEST_SETUPTOOLS[0])]
    assert build_info()["oldest_torch"] == oldest


def test_cuda_is_built_with_the_toolkit_of_torch(setup: ModuleType, nvcc: Path) -> None:
    assert setup.choose_cuda("12.6") == (str(nvcc), "")
    assert setup.toolkit_folder(str(nvcc)) == str(nvcc.parents[1])


@pytest.mark.parametrize(
    ("torch_cuda", "obstacle"),
    [
        ("13.0", "nvcc is CUDA 12.8, but torch was built with CUDA 13.0"),
        (None, "this torch is a build without CUDA"),
        ("12.8", "there is no nvcc in {home}/bin (CUDA_HOME)"),
    ],
)
def test_why_cuda_is_not_built(
    setup: ModuleType, nvcc: Path, monkeypatch: pytest.MonkeyPatch, torch_cuda: str | None, obstacle: str
) -> None:
    obstacle = obstacle.format(home=nvcc.parents[1])
    if "no nvcc" in obstacle:
        nvcc.unlink()
    assert setup.choose_cuda(torch_cuda) == (None, obstacle)
    monkeypatch.setenv("PWLU_BUILD_CUDA", "1")
    with pytest.raises(SystemExit, match=re.escape(f"PWLU_BUILD_CUDA=1, but {obstacle}")):
        setup.choose_cuda(torch_cuda)


@pytest.mark.parametrize("missing", ["torch", "setuptools"])
def test_a_missing_package_is_named_with_the_command(
    started: Start, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=f"needs {missing}.*{sys.executable} -m pip install 'torch>=2.10'"):
        started()


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        ("", "7.0;7.5;8.0;9.0;10.0+PTX"),
        (" ", "7.0;7.5;8.0;9.0;10.0+PTX"),
        ("9.0a", "9.0a"),
        ("Hopper", "Hopper"),
        ("8.0 9.0+PTX", "8.0;9.0+PTX"),
        ("8.0,  9.0;", "8.0;9.0"),
    ],
)
def test_architectures(
    started: Start,
    nvcc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    built: str,
) -> None:
    """The list that torch gets; an empty one is what a container has that wants the default."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    started()
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == built
    info = json.loads((tmp_path / "pwlu" / "_build_info.json").read_text())
    assert info["cuda_architectures"] == built.split(";")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("native", "torch sees no GPU here"),
        ("90", r"Unknown CUDA arch \(90\)"),
        ("8.0;Hoper", r"Unknown CUDA arch \(Hoper\)"),
        ("3.5;8.0", r"nvcc does not compile for sm_35"),
        ("12.1+PTX", r"nvcc does not compile for sm_121"),
    ],
)
def test_architectures_that_cannot_be_built_stop_before_the_compiler(
    started: Start, nvcc: Path, monkeypatch: pytest.MonkeyPatch, asked: str, why: str
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    said = f"TORCH_CUDA_ARCH_LIST is '{re.escape(asked)}': .*{why}.*Unset it for 7.0;7.5;8.0;9.0;10.0\\+PTX"
    with pytest.raises(SystemExit, match=said):
        started()


def test_empty_variables_are_not_set(started: Start, nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join((str(nvcc.parent), os.environ["PATH"])))
    for name in (
        "PWLU_BUILD_CUDA",
        "PWLU_ONNXRUNTIME_INCLUDE",
        "TORCH_CUDA_ARCH_LIST",
        "CUDA_HOME",
        "CC",
        "CXX",
    ):
        monkeypatch.setenv(name, "")
    names = [extension.name for extension in started()["ext_modules"]]
    assert names == ["pwlu._cpu", "pwlu._cuda"]
    assert os.environ["CUDA_HOME"] == str(nvcc.parents[1]) and "CXX" not in os.environ


@pytest.mark.parametrize(("free_threaded", "tag"), [(None, "cp310-abi3"), (1, "cp3")])
def test_a_free_threaded_python_builds_a_wheel_of_its_own(
    started: Start,
    monkeypatch: pytest.MonkeyPatch,
    free_threaded: int | None,
    tag: str,
) -> None:
    """setuptools refuses the ABI of all Pythons there; it is real here, the Python pretended."""
    monkeypatch.setenv("PWLU_BUILD_CUDA", "0")
    known = sysconfig.get_config_var
    monkeypatch.setattr(
        sysconfig, "get_config_var", lambda name: free_threaded if name == "Py_GIL_DISABLED" else known(name)
    )
    extension = setuptools.Extension("pwlu._cpu", [])
    options = started()["options"]
    wheel = setuptools.Distribution({"name": "pwlu", "ext_modules": [extension], "options": options})
    command = wheel.get_command_obj("bdist_wheel")
    command.ensure_finalized()
    assert "-".join(command.get_tag()).startswith(tag)
    assert ("abi3" in command.get_tag()[1]) == (not free_threaded)


@pytest.mark.parametrize("compiler", ["/nowhere/clang++", "no-ccache c++", None])
def test_no_compiler_is_named(
    started: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    if compiler is None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CXX", compiler)
    named = "c++" if compiler is None else compiler.split()[0]
    with pytest.raises(
        SystemExit, match=rf"compiler '{re.escape(named)}' was not found.*apt install g\+\+.*CXX"
    ):
        started()


def test_a_broken_nvcc_is_named_with_what_it_says(started: Start, nvcc: Path) -> None:
    nvcc.write_text("#!/bin/sh\necho 'nvcc: libx.so is missing' >&2\nexit 127\n")
    with pytest.raises(SystemExit, match=f"{nvcc} --version.*libx.so is missing.*PWLU_BUILD_CUDA=0"):
        started()


def test_cuda_can_be_declined(setup: ModuleType, nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWLU_BUILD_CUDA", "0")
    assert setup.choose_cuda("12.8") == (None, "PWLU_BUILD_CUDA was 0")
    monkeypatch.setenv("PWLU_BUILD_CUDA", "yes")
    with pytest.raises(SystemExit, match="PWLU_BUILD_CUDA is 'yes', expected auto, 1 or 0"):
        setup.choose_cuda("12.8")


def test_the_library_for_onnxruntime_is_built_where_its_header_is(
    started: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PWLU_BUILD_CUDA", "0")
    monkeypatch.setenv("PWLU_ONNXRUNTIME_INCLUDE", str(tmp_path))
    with pytest.raises(
        SystemExit, match=f"no onnxruntime_c_api.h in {re.escape(str(tmp_path))} .*or unset it"
    ):
        started()
    (tmp_path / "onnxruntime_c_api.h").touch()
    cpu, onnx = started()["ext_modules"]
    assert (cpu.name, onnx.name) == ("pwlu._cpu", "pwlu._onnx")
    assert onnx.include_dirs == [str(tmp_path)] and onnx.libraries == []
    assert json.loads((tmp_path / "pwlu" / "_build_info.json").read_text())["onnx"] is True


def test_a_build_finds_ninja_and_packs_nothing_of_an_earlier_one(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    library = tmp_path / "build" / "lib.linux-x86_64" / "pwlu" / "_cuda.abi3.so"
    compiled = tmp_path / "build" / "temp.linux-x86_64" / "forward.o"
    for file in (library, compiled):
        file.parent.mkdir(parents=True)
        file.touch()
    setup.prepare_environment(None)
    assert compiled.exists() and not library.exists()
    assert os.environ["PATH"] == os.pathsep + sysconfig.get_path("scripts")


@pytest.mark.parametrize(("source", "kernels"), [("forward.cu", 24), ("normalized.cu", 32)])
def test_kernels_spill_no_registers(source: str, kernels: int, setup: ModuleType) -> None:
    nvcc, obstacle = setup.choose_cuda(torch.version.cuda)
    if nvcc is None:
        pytest.skip(obstacle)
    flags = ["-O3", "-std=c++17", "-Xptxas", "-v", "-arch=sm_90", "-cubin", "-o", os.devnull]
    command = [nvcc, *flags, EXTENSION / "csrc" / "cuda" / source]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    frames = re.findall(r"Compiling entry function.*?\n.*?\n\s*(.* spill loads)", report)
    assert len(frames) == kernels
    assert set(frames) == {"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"}
