"""Small networks in which a BatchNorm, or a sum of two, comes before a PWLU; together and apart."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pwlu import fuse_batch_norm
from pwlu_ext.tests.helpers import bent_module

Make = Callable[[int], nn.Module]


class Block(nn.Module):
    """A residual block: its first BatchNorm goes to a PWLU, the last two into the sum before another one."""

    def __init__(self, norm: Make, groups: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, 4, 3), norm(4), bent_module(4 // groups, 5)
        self.conv2, self.bn2, self.act2 = nn.Conv2d(4, 4, 3), norm(4), bent_module(4 // groups, 5)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 5), norm(4))
        self.conv3, self.bn3, self.act3 = nn.Conv2d(4, 4, 1), norm(4), bent_module(4 // groups, 5)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        x = self.act2(x)
        return self.act3(x + self.bn3(self.conv3(x)))


def block(norm: Make = nn.BatchNorm2d, groups: int = 1) -> nn.Sequential:
    """With a linear layer behind it, in float64; weights of BatchNorms are of either sign, one is 0."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(norm, groups), nn.Flatten(), nn.Linear(4 * 4 * 4, 3)).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.normal_()
                module.weight[0] = 0
                module.bias.normal_()
    return model


SIZE = (3, 8, 8)


def images(seed: int = 0, number: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(number, *SIZE, generator=generator, dtype=torch.float64) + 1


def fused_copy(model: nn.Module) -> nn.Module:
    fused = copy.deepcopy(model)
    fuse_batch_norm(fused, input_size=SIZE)
    return fused


def step(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs and the gradients of a pass, and the buffers after it."""
    x = x.detach().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    gradients = {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    return {"y": y.detach(), "gradient of x": x.grad, **gradients, **buffers}


def assert_alike(actual: dict[str, Tensor], expected: dict[str, Tensor], precision: float = 1e-9) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=precision, atol=precision, msg=name)
