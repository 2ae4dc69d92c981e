import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that has kernels."""
    return request.param


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` run wherever a GPU is."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
