"""Fused SyncBatchNorms on two processes (gloo): their statistics are those of one process with all data."""

from typing import Any

import pytest
import torch
from torch import nn

from pwlu_ext.tests.fused_networks import assert_alike, block, images
from pwlu_ext.tests.fused_ranks import BATCH, WAYS
from pwlu_ext.tests.helpers import two_ranks_and_one


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return two_ranks_and_one("pwlu_ext.tests.fused_ranks", tmp_path_factory.mktemp("ranks"))


def test_two_processes_equal_one(results: dict[str, Any]) -> None:
    """Weights and running statistics, with unequal shares, one of them empty; apart in the one process."""
    first, second, alone = (results[name] for name in ("0_of_2", "1_of_2", "0_of_1"))
    start = block().state_dict()
    for name in ("0.act2.points", "0.bn2.weight", "0.downsample.1.running_var"):
        assert not torch.allclose(alone["alone"][name], start[name]), name
    for way in WAYS:
        assert all(torch.equal(second[way][name], value) for name, value in first[way].items())
        assert_alike(first[way], alone["alone"])


def test_one_element_over_all_processes_moves_nothing(results: dict[str, Any]) -> None:
    apart = nn.BatchNorm2d(3, momentum=None).double()
    apart(images(0, BATCH))
    for name, buffer in apart.named_buffers():
        torch.testing.assert_close(results["0_of_2"]["after one element"][f"0.{name}"], buffer, msg=name)


def test_processes_meet_as_often_where_one_of_them_has_a_hook(results: dict[str, Any]) -> None:
    """Else a sum meets that of another purpose. The input needs no gradient."""
    for rank in ("0_of_2", "1_of_2"):
        assert results[rank]["with a hook"].tolist() == [2, 2, 2]
