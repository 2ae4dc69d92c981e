"""Which library is loaded where: older torch, torch without CUDA, another CUDA, a broken file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pwlu import PWLU, build_info, library

BUILT = {"cuda": True, "cuda_toolkit": "13.0", "oldest_torch": "2.10"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose CUDA library is no library, under a torch with CUDA 13."""
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (tmp_path / "_cuda.abi3.so").write_bytes(b"broken")
    return tmp_path


def test_a_broken_library_is_not_loaded(folder: Path) -> None:
    status = library._load_cuda(BUILT)
    assert status.startswith("not loaded: ") and str(folder / "_cuda.abi3.so") in status


@pytest.mark.skipif(sys.platform != "linux", reason="builds libraries in the manner of Linux")
def test_a_library_that_misses_another_is_not_loaded(folder: Path) -> None:
    """As on a machine without the CUDA runtime."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    empty, runtime, library_file = folder / "empty.c", folder / "libcudart.so.99", folder / "_cuda.abi3.so"
    empty.touch()
    shared = [compiler, "-shared", "-fPIC", empty, "-Wl,--no-as-needed"]
    subprocess.run([*shared, f"-Wl,-soname,{runtime.name}", "-o", runtime], check=True)
    subprocess.run([*shared, runtime, "-o", library_file], check=True)
    runtime.unlink()
    assert library._load_cuda(BUILT).startswith("not loaded: libcudart.so.99")


def test_a_library_of_another_cuda_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    expected = "not loaded: it was built with CUDA 13.0, but this torch with CUDA 12.8"
    assert library._load_cuda(BUILT) == expected


def test_torch_without_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert library._load_cuda(BUILT) == "not loaded: this torch is a build without CUDA"


def test_no_library(folder: Path) -> None:
    (folder / "_cuda.abi3.so").unlink()
    assert library._load_cuda(BUILT) == "not built: its file is missing"
    assert library._load_cuda({"cuda": False, "why_not_cuda": "no nvcc"}) == "not built: no nvcc"


@pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA has no CUDA tensors")
@pytest.mark.parametrize("status", ["not built: no nvcc", "not loaded: libcudart.so.12 is missing"])
def test_a_cuda_tensor_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    monkeypatch.setattr(library, "_CUDA_STATUS", status)
    with FakeTensorMode():  # knows CUDA tensors where there is no GPU
        module, x = PWLU(3, device="cuda"), torch.empty(2, 3, device="cuda")
        with pytest.raises(RuntimeError, match=rf"no CUDA kernels \({status}\).*PWLU_BUILD_CUDA=1"):
            module(x)
    torch.testing.assert_close(PWLU(3)(torch.ones(2, 3)), torch.ones(2, 3))


def test_old_torch_is_an_import_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "_cpu.abi3.so").write_bytes(b"not to be opened")
    (folder / "_build_info.json").write_text('{"oldest_torch": "2.10"}')
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match=r"torch 2\.9\.1\+cpu is too old.*torch >= 2\.10"):
        library._load_cpu()
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    with pytest.raises(OSError, match="_cpu"):
        library._load_cpu()


def test_nothing_built_is_an_import_error(folder: Path) -> None:
    with pytest.raises(ImportError, match="not built. Build them with: pip install"):
        library._load_cpu()


def test_this_installation_agrees_with_its_record() -> None:
    """What a wheel meets on a torch that it was not built with."""
    info = build_info()
    assert info["cuda"] == (library._library("_cuda") is not None)
    assert info["cuda"] != info["cuda_status"].startswith("not built: ")
    if info["cuda"] and torch.version.cuda is None:
        assert info["cuda_status"] == "not loaded: this torch is a build without CUDA"
