"""Checkpointing, offloading, saved-tensor hooks, re-parametrisation: the results of a plain training step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pwlu import PWLU, TwoPhaseLearning, pwlu
from pwlu_ext.tests.helpers import bent_module, random_parameters, spread_inputs

Forward = Callable[[nn.Module, Tensor], Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), bent_module(3, 5), nn.Conv2d(3, 3, 1), bent_module(3, 5))


def step(forward: Forward) -> list[Tensor]:
    """y, and the gradients of x and of all parameters."""
    model, x = network(), torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    y = forward(model, x.requires_grad_())
    y.square().sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


def offloaded(model: nn.Module, x: Tensor) -> Tensor:
    with save_on_cpu():
        return model(x)


FORWARDS: dict[str, Forward] = {
    "checkpoint, reentrant": lambda model, x: checkpoint(model, x, use_reentrant=True),
    "checkpoint": lambda model, x: checkpoint(model, x, use_reentrant=False),
    "checkpoint of the activation": lambda model, x: model[2:](
        checkpoint(model[1], model[0](x), use_reentrant=False)
    ),
    "save_on_cpu": offloaded,
}


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
def test_a_step_is_that_of_a_plain_forward(forward: Forward) -> None:
    for actual, expected in zip(step(forward), step(lambda model, x: model(x)), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_in_phase_1_keeps_the_statistics(use_reentrant: bool) -> None:
    """The input is seen twice, which changes neither its mean nor its standard deviation."""
    x = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0)) + 1

    def boundaries(forward: Forward) -> Tensor:
        module = PWLU(2)
        phases = TwoPhaseLearning(module, 1)
        forward(module, x.clone().requires_grad_()).sum().backward()
        assert phases.after_optimizer_step()
        return torch.stack([module.left, module.right]).detach()

    actual = boundaries(lambda module, x: checkpoint(module, x, use_reentrant=use_reentrant))
    torch.testing.assert_close(actual, boundaries(lambda module, x: module(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_x_itself_and_the_parameters_are_all_that_is_kept(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    """x in its own dtype and memory, and C * (num_intervals + 5) numbers."""
    parameters = tuple(p.requires_grad_() for p in random_parameters(4, 8))
    x = spread_inputs((2, 4, 6, 5), parameters, dtype=dtype).to(memory_format=memory_format)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = pwlu(x.requires_grad_(), *parameters)
    of_x = kept.pop(x.untyped_storage().data_ptr())
    assert of_x.dtype == dtype and of_x.stride() == x.stride()
    assert kept.keys() == {p.untyped_storage().data_ptr() for p in parameters}
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) == 4 * 4 * (8 + 5)
    y.sum().backward()
