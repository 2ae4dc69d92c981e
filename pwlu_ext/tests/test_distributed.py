"""DDP and FSDP2 on two processes (gloo): identical ranks, equal to one process on all data."""

from typing import Any

import pytest
import torch

from pwlu_ext.tests import ddp_worker
from pwlu_ext.tests.calibration_ranks import SIZES
from pwlu_ext.tests.ddp_worker import WAYS
from pwlu_ext.tests.helpers import two_ranks_and_one

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """What the two ranks and the single process end with; they all run at the same time."""
    return two_ranks_and_one("pwlu_ext.tests.ddp_worker", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("way", WAYS)
def test_ranks_are_identical(results: dict[str, Results], way: str) -> None:
    """To the bit: a rank that reset to boundaries of its own would never meet the others again."""
    first, second = results["0_of_2"][way], results["1_of_2"][way]
    for name, value in first.items():
        if name != "warned":
            same = (
                torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
            )
            assert same, name


@pytest.mark.parametrize("way", WAYS)
def test_ranks_equal_one_process_on_the_full_batch(results: dict[str, Results], way: str) -> None:
    """Statistics, boundaries and all weights, though shares are unequal, sometimes empty, once not finite."""
    together, alone = results["0_of_2"][way], results["0_of_1"]["alone"]
    assert together["realigned"] == alone["realigned"] == ddp_worker.PHASE_1_STEPS - 1
    precision = {"rtol": 1e-4, "atol": 1e-5} if "bfloat16" not in way else {"rtol": 0.1, "atol": 0.03}
    for name in ddp_worker.network().state_dict():
        assert together[name].dtype == torch.float32
        torch.testing.assert_close(together[name], alone[name], **precision, msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_only_the_first_rank_names_what_was_left_out(results: dict[str, Results], way: str) -> None:
    """Though it was on the last rank."""
    (message,) = results["0_of_2"][way]["warned"]
    assert "'2'" in message and "not finite" in message and results["1_of_2"][way]["warned"] == []


@pytest.mark.parametrize("way", WAYS)
def test_training_moved_the_functions(results: dict[str, Results], way: str) -> None:
    """Or the comparisons above would say nothing about phase II."""
    fresh = ddp_worker.network().state_dict()
    ours = results["0_of_2"][way]
    assert not any(torch.equal(ours[name], value) for name, value in fresh.items())


def test_functions_that_fsdp2_ignores_are_named(results: dict[str, Results]) -> None:
    """Nobody averages their gradients: the ranks would learn different ones in silence."""
    (message,) = results["0_of_2"]["ignored"]
    assert "'2', '4'" in message and "`ignored_params`" in message and results["1_of_2"]["ignored"] == []


@pytest.mark.parametrize("way", ["meta", "evaluated"])
def test_sharded_functions_are_reset_whole(results: dict[str, Results], way: str) -> None:
    """As after `to_empty`, where FSDP2 shards a model without storage, or where it was evaluated before."""
    for name, value in ddp_worker.network().state_dict().items():
        if name[0] in "24":
            assert torch.equal(results["1_of_2"][way][name], value), name


def test_parameters_that_are_cut_up_are_refused(results: dict[str, Results]) -> None:
    """By FSDP1, before or after TwoPhaseLearning, with and without the original parameters."""
    for rank in ("0_of_2", "1_of_2"):
        said = results[rank]["refusals"]
        assert len(said) == 4 and all("torch.distributed.fsdp.fully_shard" in message for message in said)


@pytest.mark.parametrize("way", ["ddp", "fsdp2", "one rank has none"])
def test_calibration_is_over_all_ranks(results: dict[str, Results], way: str) -> None:
    """Whose numbers of batches differ."""
    first, second, alone = (results[rank]["calibrated"] for rank in ("0_of_2", "1_of_2", "0_of_1"))
    assert first[way]["batches"] == alone["alone"]["batches"] == len(SIZES)
    assert first[way]["change"] == second[way]["change"] > 0 and first[way]["sites"] == second[way]["sites"]
    for name, value in alone["alone"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(first[way][name], second[way][name]), name
            torch.testing.assert_close(first[way][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_an_error_of_one_rank_ends_the_calibration_of_all(results: dict[str, Results]) -> None:
    """No rank waits for ever for the others; models are as they were."""
    first, second = (results[rank]["calibrated"] for rank in ("0_of_2", "1_of_2"))
    assert first["one rank fails"].startswith("ValueError: a batch must be a tensor")
    assert second["one rank fails"].startswith("RuntimeError: pwlu.calibrate: another process")
    for said in (first, second):
        assert "no batch" in said["no rank has any"] and "'2', '4'" in said["one rank is not finite"]
