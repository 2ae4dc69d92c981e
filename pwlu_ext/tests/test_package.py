"""The source distribution, and the wheel built from it as on a machine without CUDA's compiler."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

EXTENSION = Path(__file__).parents[1]
GENERATED = ("build", "dist", "*.egg-info", "*.so", "__pycache__")
BACKEND = "import sys; from setuptools import build_meta; print(build_meta.{}(sys.argv[1]))"


def run(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Run this Python; the last line that it prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def hide_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [folder for folder in os.get_exec_path() if not shutil.which("nvcc", path=folder)]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    for name in ("CUDA_HOME", "CUDA_PATH", "PWLU_BUILD_CUDA", "PWLU_ONNXRUNTIME_INCLUDE"):
        monkeypatch.delenv(name, raising=False)
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler (neither CXX nor c++) in a folder without nvcc")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution's folder, unpacked; built from a copy, with what a build leaves in it."""
    if not all(map(importlib.util.find_spec, ("setuptools", "ninja", "wheel"))):
        pytest.skip("building needs setuptools, ninja and wheel")
    top = tmp_path_factory.mktemp("sdist")
    shutil.copy(EXTENSION.parent / "LICENSE", top)
    source = top / "pwlu_ext"
    shutil.copytree(EXTENSION, source, symlinks=True, ignore=shutil.ignore_patterns(*GENERATED))
    (source / "pwlu" / "_build_info.json").write_text('{"cuda": "of an earlier build"}')
    archive = top / run("-c", BACKEND.format("build_sdist"), top, cwd=source, PWLU_BUILD_CUDA="0")
    with tarfile.open(archive) as file:
        file.extractall(top)
    return top / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution alone where there is no nvcc."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as monkeypatch:
        hide_nvcc(monkeypatch)
        return folder / run("-c", BACKEND.format("build_wheel"), folder, cwd=sdist)


def files_below(folder: Path, *ignored: str) -> set[str]:
    outside = shutil.ignore_patterns(*ignored)
    found: set[str] = set()
    for parent, folders, names in os.walk(folder):
        folders[:] = set(folders) - outside(parent, folders)
        kept = set(names) - outside(parent, names)
        found |= {Path(parent, name).relative_to(folder).as_posix() for name in kept}
    return found


def test_the_source_distribution_is_what_a_build_needs(sdist: Path) -> None:
    """All of csrc, also the CUDA sources, which no wheel here is made of; no tests, nothing of a build."""
    repository = files_below(EXTENSION, *GENERATED, "tests", "benchmarks") - {"pwlu/_build_info.json"}
    packed = files_below(sdist, "*.egg-info")
    assert packed == repository | {"PKG-INFO", "setup.cfg"}
    assert {"setup.py", "pyproject.toml", "README.md", "csrc/pwlu.h", "csrc/cuda/forward.cu"} <= packed


def test_the_wheel_holds_the_package_for_every_python_since_3_10(wheel: Path) -> None:
    python = {path.relative_to(EXTENSION).as_posix() for path in (EXTENSION / "pwlu").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name
        }
        names = set(archive.namelist()) - set(texts.values())
        licence, tags = (archive.read(texts[name]).decode() for name in ("licenses/LICENSE", "WHEEL"))
    assert names == python | {"pwlu/py.typed", "pwlu/_build_info.json", "pwlu/_cpu.abi3.so"}
    assert licence == (EXTENSION.parent / "LICENSE").read_text()
    assert "-cp310-abi3-" in wheel.name
    assert "Root-Is-Purelib: false" in tags and "Tag: cp310-abi3-" in tags


SCRIPT = """
import json, pwlu, torch
x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
module = pwlu.PWLU(3)
module(x).sum().backward()
print(json.dumps([pwlu.__file__, pwlu.build_info(), (x.grad - (x > 0).float()).abs().max().item()]))
"""


def test_the_wheel_works_after_installation(wheel: Path, tmp_path: Path) -> None:
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    subprocess.run([sys.executable, *pip, "--target", tmp_path / "installed", wheel], check=True)
    file, info, error = json.loads(run("-c", SCRIPT, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed")))
    assert Path(file).is_relative_to(tmp_path)
    assert info["cuda"] is False and info["why_not_cuda"].startswith("nvcc was not found")
    assert info["cuda_status"] == f"not built: {info['why_not_cuda']}"
    assert error < 1e-5  # PWLU starts as ReLU
