from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

# What an environment with nothing but torch and pytest does not have; `make test-wheel` tests in one.
OPTIONAL = ("numpy", "onnx", "onnxruntime", "onnxscript", "timm", "torchvision")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that has kernels."""
    return request.param


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` run wherever a GPU is."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


class SkippingModule(pytest.Module):
    """A test file that is skipped, with the reason, where it imports an optional package that is not here."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError) and missing.name in OPTIONAL:
                pytest.skip(f"{self.name} needs {missing.name}", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Take the above for the test files of this folder."""
    return SkippingModule.from_parent(parent, path=module_path)
