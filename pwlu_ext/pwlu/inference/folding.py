"""`fold`: the inference form of a trained model (section 4.3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..fused.norms import unfuse
from ..module import PWLU
from ..norms import calls_its_activation
from .absorb import Feed, find_feeds
from .tables import fold_pwlu


@dataclass(frozen=True)
class FoldReport:
    """Every PWLU, with the BatchNorm that it absorbed or the reason why none; `print` it for a table."""

    feeds: tuple[Feed, ...]

    def __str__(self) -> str:
        width = max(len(feed.pwlu) for feed in self.feeds)
        outcomes = [
            f"nothing absorbed: {feed.reason}" if feed.norm is None else f"absorbed {feed.norm}"
            for feed in self.feeds
        ]
        rows = [f"{feed.pwlu:<{width}}  {text}" for feed, text in zip(self.feeds, outcomes, strict=True)]
        return "\n".join([*rows, self.summary()])

    def summary(self) -> str:
        """Return the table's last line, e.g. `9 of 17 PWLUs absorbed the BatchNorm before them`."""
        absorbed = sum(feed.norm is not None for feed in self.feeds)
        return f"{absorbed} of {len(self.feeds)} PWLUs absorbed the BatchNorm before them"


def fold(
    model: nn.Module, *, absorb_batch_norm: bool = False, input_size: Sequence[int] = (3, 224, 224)
) -> nn.Module:
    """Return a copy of `model` for inference: in eval mode, every PWLU in the form of section 4.3.

    The copy computes what the model computes in eval mode, up to rounding (see `pwlu.FoldedPWLU`).
    Exported or traced it is plain tensor operations: torch.export, AOTInductor, the ONNX exporters and
    torch.jit.trace take it. A PWLU in phase I becomes the lines between the points of its starting function.
    Hooks on replaced modules are dropped. A state_dict of the copy can be loaded into `fold` of another model
    of the same architecture.

    With `absorb_batch_norm` every BatchNorm whose output goes into one PWLU and nowhere else is made part of
    that PWLU's tables, exactly: for a * x + b the boundaries become (B - b) / a, S becomes S * a, and O
    becomes S * b + O. A layer-wise PWLU becomes channel-wise. An `nn.Identity` takes the BatchNorm's place; a
    timm BatchNormAct2d is replaced as a whole. `fold_report` of the copy, a `pwlu.FoldReport`, says
    for every PWLU what it absorbed or why nothing.

    Args:
        model: any module with a PWLU in it, or a PWLU.
        absorb_batch_norm: whether to absorb BatchNorms; `model` then has to take one batched tensor.
        input_size: shape of one input without the batch dimension; `absorb_batch_norm` follows its data.

    Raises:
        ValueError: there is no PWLU; one has parameters that are not finite; or no BatchNorm can be absorbed,
            with the reasons.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("model is wrapped in DistributedDataParallel: fold model.module instead")
    if not any(isinstance(module, PWLU) for module in model.modules()):
        raise ValueError(f"nothing to fold: {type(model).__name__} has no PWLU")
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        unfuse(module)
    if not absorb_batch_norm:
        return _replace(model, _folded_modules(model, {}))
    report = FoldReport(find_feeds(model, input_size))
    norms = {feed.pwlu: feed.norm for feed in report.feeds if feed.norm is not None}
    if not norms:
        raise ValueError(f"no BatchNorm of {type(model).__name__} can be absorbed:\n{report}")
    model = _replace(model, _folded_modules(model, norms))
    model.fold_report = report  # type: ignore[assignment]
    return model


def _folded_modules(model: nn.Module, norms: Mapping[str, str]) -> dict[nn.Module, nn.Module]:
    """Return what replaces each PWLU and each BatchNorm of `norms`, which maps names of PWLUs to theirs."""
    new: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        if not isinstance(module, PWLU):
            continue
        norm = model.get_submodule(norms[name]) if name in norms else None
        assert norm is None or isinstance(norm, _BatchNorm)
        try:
            new[module] = fold_pwlu(module, norm)
        except ValueError as error:
            raise ValueError(f"PWLU {name!r} cannot be folded: {error}") from error
        if norm is not None:
            new[norm] = new[module] if calls_its_activation(type(norm)) else nn.Identity()
    return new


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put the new modules wherever the old ones are registered; return the model, or what replaces it."""
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, attribute, new[child])
    return new.get(model, model).eval()
