"""DistributedDataParallel on two processes (gloo): identical ranks, equal to one process on all data."""

import sys
from subprocess import Popen
from typing import Any

import pytest
import torch

from pwlu_ext.tests import ddp_worker
from pwlu_ext.tests.helpers import ROOT, environment_of_one_thread


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the two ranks and the single process end with; they all run at the same time."""
    folder = tmp_path_factory.mktemp("ranks")
    runs = {"0_of_2": (0, 2), "1_of_2": (1, 2), "0_of_1": (0, 1)}
    command = [sys.executable, "-m", "pwlu_ext.tests.ddp_worker", str(folder)]
    processes = [
        Popen([*command, str(rank), str(size)], cwd=ROOT, env=environment_of_one_thread())
        for rank, size in runs.values()
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0, 0]
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in runs}


def test_ranks_are_identical(results: dict[str, dict[str, Any]]) -> None:
    """To the bit: a rank that reset to boundaries of its own would never meet the others again."""
    first, second = results["0_of_2"], results["1_of_2"]
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name


def test_ranks_equal_one_process_on_the_full_batch(results: dict[str, dict[str, Any]]) -> None:
    """Statistics, boundaries and all weights, though shares are unequal and sometimes empty."""
    together, alone = results["0_of_2"], results["0_of_1"]
    assert together["realigned"] == alone["realigned"] == ddp_worker.PHASE_1_STEPS - 1
    for name in ddp_worker.network().state_dict():
        torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-5, msg=name)


def test_training_moved_the_functions(results: dict[str, dict[str, Any]]) -> None:
    """Or the comparisons above would say nothing about phase II."""
    fresh = ddp_worker.network().state_dict()
    assert not any(
        torch.equal(value, fresh[name]) for name, value in results["0_of_2"].items() if name in fresh
    )
