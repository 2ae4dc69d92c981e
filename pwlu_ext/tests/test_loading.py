"""Which library is loaded where: older torch, torch without CUDA, another CUDA, a broken file."""

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("info", "torch_cuda", "status"),
    [
        (BUILT, "12.8", "not loaded: it was built with CUDA 13.0, but this torch with CUDA 12.8"),
        (BUILT, None, "not loaded: this torch is a build without CUDA"),
        ({"cuda": False, "why_not_cuda": "no nvcc"}, "13.0", "not built: no nvcc"),
        (BUILT, "13.0", "not built: its file is missing"),
    ],
)
def test_why_a_library_is_not_in_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], torch_cuda: str | None, status: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    if status.startswith("not built"):
        (folder / "_cuda.abi3.so").unlink()
    assert library._load_cuda(info) == status


@pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA has no CUDA tensors")
def test_a_cuda_tensor_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_CUDA_STATUS", "not built: no nvcc")
    with FakeTensorMode():  # knows CUDA tensors where there is no GPU
        module, x = PWLU(3, device="cuda"), torch.empty(2, 3, device="cuda")
        with pytest.raises(RuntimeError, match=r"no CUDA kernels \(not built: no nvcc\).*PWLU_BUILD_CUDA=1"):
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
    assert {"version", "torch", "cuda", "cuda_status", "cpu_isa", "onnx"} <= info.keys()
    assert info["cpu_isa"] in ("avx512_bf16", "avx512", "avx2", "plain")
    assert info["cuda"] == (library.library_file("_cuda") is not None)
    assert info["onnx"] == (library.library_file("_onnx") is not None)
    assert info["cuda"] != info["cuda_status"].startswith("not built: ")
    if info["cuda"] and torch.version.cuda is None:
        assert info["cuda_status"] == "not loaded: this torch is a build without CUDA"
