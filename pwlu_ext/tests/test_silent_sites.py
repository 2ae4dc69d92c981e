"""Sites that phase I learns nothing about are named at the realignment, and keep their boundaries."""

import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pwlu import PWLU, TwoPhaseLearning, replace_activations
from pwlu_ext.tests.networks import pwlus
from pwlu_ext.tests.training import assert_statistics, batches, feed, mean_and_std

SIZE = (3, 32, 32)


def efficientnet() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=5)
    replace_activations(model, input_size=SIZE)
    return model


def train_steps(model: nn.Module, phases: TwoPhaseLearning, *inputs: Tensor) -> list[str]:
    """Take a step with each of the inputs; return what was warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in inputs:
            model(x).sum().backward()
            phases.before_optimizer_step()
            phases.after_optimizer_step()
    return [str(message.message) for message in caught]


def images(steps: int) -> Tensor:
    return torch.randn(steps, 4, *SIZE, generator=torch.Generator().manual_seed(0))


def blocks_in_eval_mode(model: nn.Module) -> nn.Module:
    model.blocks.eval()
    return model


@pytest.mark.parametrize(
    ("change", "calls_all"),
    [
        (nn.SyncBatchNorm.convert_sync_batchnorm, False),
        (blocks_in_eval_mode, False),
        (nn.Module.eval, False),
        (convert_sync_batchnorm, True),
        (lambda model: model, True),
    ],
    ids=["torch's conversion", "blocks in eval mode", "eval mode", "timm's conversion", "unchanged"],
)
def test_a_network_whose_sites_are_not_called(change: Callable[..., nn.Module], calls_all: bool) -> None:
    model = change(efficientnet())
    phases = TwoPhaseLearning(model, 2)
    messages = train_steps(model, phases, *images(2))
    assert phases.phase == 2
    silent = {
        name
        for name, module in model.named_modules()
        if isinstance(module, PWLU) and module.left.eq(-3).all()
    }
    if calls_all:
        assert not messages and not silent
        return
    (message,) = messages
    named = set(message.split("'")[1::2]) & silent
    assert "timm.layers.convert_sync_batchnorm" in message and "training mode" in message
    assert len(named) == min(5, len(silent)) and len(silent) > 5
    assert f"and {len(silent) - 5} more" in message


def two(first: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(PWLU(first), nn.Linear(2, 2), PWLU(2))


def test_what_is_used_in_some_steps_is_not_named() -> None:
    """Nor is a channel without input, such as a dead one, where the others have some."""
    model = two()
    model[0].training = False
    phases = TwoPhaseLearning(model, 3)
    x, y, z = (batch * torch.tensor([1.0, 0.0]) for batch in batches(3, 8, 2))
    messages = train_steps(model, phases, x)
    model.train()
    messages += train_steps(model, phases, y)
    model[0].training = False
    assert messages + train_steps(model, phases, z) == []
    assert_statistics(model[0], *mean_and_std(y, (0,)))


def test_a_module_that_was_taken_out_is_named() -> None:
    model = two()
    phases = TwoPhaseLearning(model, 1)
    model[0] = nn.ReLU()
    (message,) = train_steps(model, phases, *batches(1, 8, 2))
    assert "'0'" in message and "'2'" not in message and "no longer in the model" in message


def test_a_module_that_came_later_is_named_at_the_first_step() -> None:
    model = two()
    phases = TwoPhaseLearning(model, 3)
    model[0] = PWLU(2)
    (message,) = train_steps(model, phases, *batches(1, 8, 2))
    assert "'0': not in phase I" in message and "after all changes" in message


def test_a_resumed_run_knows_which_sites_had_input() -> None:
    model = two()
    model[2].training = False
    phases = TwoPhaseLearning(model, 2)
    x, y = batches(2, 8, 2)
    assert train_steps(model, phases, x) == []
    resumed = two()
    again = TwoPhaseLearning(resumed, 2)
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(phases.state_dict())
    resumed.eval()
    (message,) = train_steps(resumed, again, y)
    assert "'2'" in message and "'0'" not in message
    assert_statistics(resumed[0], *mean_and_std(x, (0,)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_activations_count_as_others(use_reentrant: bool) -> None:
    """Each input is seen twice, once in the backward pass."""
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 1)
    x, y = (batch.requires_grad_() for batch in batches(2, 9, 2))
    for part in (x, y):
        checkpoint(module, part, use_reentrant=use_reentrant).sum().backward()
    feed(module, phases, [])
    assert_statistics(module, *mean_and_std(torch.cat([x, y]).detach(), (0,)))


def test_replicas_on_other_devices_are_refused() -> None:
    """As DataParallel makes them; they share the statistics of the module."""
    module = PWLU(2)
    TwoPhaseLearning(module, 1)
    replica = module._replicate_for_data_parallel()
    for name, parameter in module.named_parameters():
        setattr(replica, name, parameter.detach().to("meta"))
    with pytest.raises(ValueError, match="on meta.*on cpu.*DistributedDataParallel"):
        replica(torch.empty(3, 2, device="meta"))


@pytest.mark.parametrize("hooks", [False, True])
def test_a_warning_shows_the_line_of_the_training_loop(hooks: bool) -> None:
    model = two().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    phases = TwoPhaseLearning(model, 1, optimizer=optimizer if hooks else None)
    model(batches(1, 8, 2)[0]).sum().backward()
    with pytest.warns(UserWarning, match="'0', '2'") as caught:
        optimizer.step() if hooks else phases.after_optimizer_step()
    assert caught[0].filename == __file__


def test_a_warning_that_is_an_error_comes_after_the_realignment() -> None:
    model = two()
    model[2].training = False
    phases = TwoPhaseLearning(model, 1)
    model(batches(1, 8, 2)[0])
    with warnings.catch_warnings(action="error"), pytest.raises(UserWarning, match="'2'"):
        phases.after_optimizer_step()
    assert phases.phase == 2 and not any(site.left.eq(-3).any() for site in pwlus(model)[:1])
