"""What a network began as: its replaced activations and, with trained weights, what stood there before."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwlu import PWLU, ReplacementReport, Site

SAME = 0.05  # functions that differ by less are the same: GELU and its approximation by tanh, say


@dataclass(frozen=True)
class Exchange:
    """`parent.attribute` is `new` in place of `old`."""

    parent: nn.Module
    attribute: str
    old: nn.Module
    new: nn.Module


@dataclass(frozen=True)
class Origin:
    """What a network began as.

    Attributes:
        report: of the replacement of its activations.
        is_trained: its weights are trained ones.
        new: the layers that nevertheless are not; empty without any.
        keeps_functions: its activations are those that the weights were trained with.
        exchanges: what stands in place of those.
        changed: the sites, with the kinds, where that is another function; of a PWLU counts its start.
        fused: what came of fusing PWLUs with the BatchNorms before them, in a sentence.
    """

    report: ReplacementReport
    is_trained: bool = False
    new: str = ""
    keeps_functions: bool = False
    exchanges: tuple[Exchange, ...] = ()
    changed: tuple[str, ...] = ()
    fused: str = ""

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Inside the block the network has the activations that its weights were trained with."""
        for exchange in self.exchanges:
            parameter = next(exchange.parent.parameters(), None)
            old = exchange.old if parameter is None else exchange.old.to(parameter.device)
            setattr(exchange.parent, exchange.attribute, old.train(exchange.new.training))
        try:
            yield
        finally:
            for exchange in self.exchanges:
                setattr(exchange.parent, exchange.attribute, exchange.new)


def exchange_activations(
    root: nn.Module, put: Callable[[nn.Module], ReplacementReport], new_layers: str
) -> Origin:
    """Let `put` replace activations below `root`, where all weights but those of `new_layers` are trained."""
    before = [
        (parent, attribute, child)
        for parent in root.modules()
        for attribute, child in parent._modules.items()
        if child is not None
    ]
    report = put(root)
    exchanges = []
    for parent, attribute, old in before:
        new = parent._modules[attribute]
        if new is not None and new is not old:
            exchanges.append(Exchange(parent, attribute, old, new))
    sites = {root.get_submodule(site.name): site for site in report.sites if site.replaced}
    changed = {
        sites[exchange.new]: None for exchange in exchanges if _is_changed(exchange, sites[exchange.new])
    }
    return Origin(
        report,
        is_trained=True,
        new=new_layers,
        exchanges=tuple(exchanges),
        changed=tuple(f"{site.name} ({site.kind})" for site in changed),
    )


def _is_changed(exchange: Exchange, site: Site) -> bool:
    """Return whether old and new differ on [-8, 8], which ReLU6 needs."""
    old, new = exchange.old, exchange.new
    channel_dim = getattr(new, "channel_dim", getattr(old, "channel_dim", 1)) % 4
    shape = [1, 1, 1, 1]
    shape[channel_dim] = site.num_channels or 1
    x = torch.linspace(-8, 8, 81)[:, None, None, None].expand(81, *shape[1:])
    with torch.no_grad():
        became = new.start(x) if isinstance(new, PWLU) else _apply(new, x)
        return not torch.allclose(_apply(old, x), became, rtol=0, atol=SAME)


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    was_training = module.training
    y: Tensor = module.eval()(x.clone())  # it may work in place
    module.train(was_training)
    return y
