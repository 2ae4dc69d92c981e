"""What setup.py decides to build, on machines that are pretended."""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from pwlu import build_info

EXTENSION = Path(__file__).parents[1]


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pwlu_setup", EXTENSION / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CUDA 12.8 whose compiler can say its version and its folder, and nothing else."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        '--version) echo "Cuda compilation tools, release 12.8, V12.8.93" ;;\n'
        f'--dryrun) echo "#$ TOP={tmp_path}/bin/.." >&2 ;;\n'
        "esac\n"
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("PWLU_BUILD_CUDA", raising=False)
    return tmp_path


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cpu", "2.9.0a0+git1234"])
def test_torch_without_the_abi_is_an_error(setup: ModuleType, version: str) -> None:
    with pytest.raises(SystemExit, match=rf"torch {re.escape(version)} is too old.*torch>=2\.10"):
        setup.check_versions(version, "80.0")


def test_setuptools_that_cannot_read_the_settings_is_an_error(setup: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"setuptools 65\.5\.0 is too old.*setuptools>=77"):
        setup.check_versions("2.10.0", "65.5.0")


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+b4e4ee8", "2.14.1+cu130", "3.0.0"])
def test_torch_with_the_abi_will_do(setup: ModuleType, version: str) -> None:
    setup.check_versions(version, "77.0.3")


def test_a_build_against_an_old_torch_stops_before_the_compiler(tmp_path: Path) -> None:
    for name, version in (("torch", "2.9.1"), ("setuptools", "80.0.0")):
        (tmp_path / f"{name}.py").write_text(f'__version__ = "{version}"\n')
    command = [sys.executable, EXTENSION / "setup.py", "build"]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    build = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert build.returncode == 1
    assert build.stderr.startswith("pwlu: torch 2.9.1 is too old") and build.stdout == ""


def test_the_oldest_versions_are_the_same_everywhere(setup: ModuleType) -> None:
    major, minor = setup.OLDEST_TORCH
    text = (EXTENSION / "pyproject.toml").read_text()
    assert re.findall(r'"torch>=([\d.]+)"', text) == [f"{major}.{minor}"] * 2
    assert re.findall(r'"setuptools>=(\d+)"', text) == [str(setup.OLDEST_SETUPTOOLS[0])]
    assert build_info()["oldest_torch"] == f"{major}.{minor}"
    assert setup.STABLE_ABI == f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}" + 12 * "0"


def test_cuda_is_built_with_the_toolkit_of_torch(setup: ModuleType, toolkit: Path) -> None:
    nvcc = str(toolkit / "bin" / "nvcc")
    assert setup.choose_cuda("12.6") == (nvcc, "")
    assert setup.toolkit_folder(nvcc) == str(toolkit)


@pytest.mark.parametrize(
    ("torch_cuda", "obstacle"),
    [
        ("13.0", "nvcc is CUDA 12.8, but torch was built with CUDA 13.0"),
        (None, "this torch is a build without CUDA"),
    ],
)
def test_cuda_is_not_built_for_another_torch(
    setup: ModuleType,
    toolkit: Path,
    monkeypatch: pytest.MonkeyPatch,
    torch_cuda: str | None,
    obstacle: str,
) -> None:
    assert setup.choose_cuda(torch_cuda) == (None, obstacle)
    monkeypatch.setenv("PWLU_BUILD_CUDA", "1")
    with pytest.raises(SystemExit, match=f"PWLU_BUILD_CUDA=1, but {obstacle}"):
        setup.choose_cuda(torch_cuda)


def test_without_nvcc(setup: ModuleType, toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toolkit / "bin" / "nvcc").unlink()
    nvcc, obstacle = setup.choose_cuda("12.8")
    assert nvcc is None and obstacle.startswith("nvcc was not found")
    monkeypatch.setenv("PWLU_BUILD_CUDA", "1")
    with pytest.raises(SystemExit, match="PWLU_BUILD_CUDA=1, but nvcc was not found"):
        setup.choose_cuda("12.8")


def test_cuda_can_be_declined(setup: ModuleType, toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWLU_BUILD_CUDA", "0")
    assert setup.choose_cuda("12.8") == (None, "PWLU_BUILD_CUDA was 0")
    monkeypatch.setenv("PWLU_BUILD_CUDA", "yes")
    with pytest.raises(SystemExit, match="PWLU_BUILD_CUDA is 'yes', expected auto, 1 or 0"):
        setup.choose_cuda("12.8")


def test_architectures_are_those_of_the_toolkit(setup: ModuleType) -> None:
    of = {version: setup.default_architectures(version) for version in [(12, 6), (12, 8), (13, 0)]}
    assert [text.startswith("7.0") for text in of.values()] == [True, True, False]
    assert ["10.0" in text for text in of.values()] == [False, True, True]
    assert all(text.endswith("+PTX") for text in of.values())


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
