"""`fold`: the inference form of a trained model (section 4.3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..fused.norms import unfuse
from ..module import PWLU
from ..norms import calls_its_activation
from ..suggestion import expected_one_of
from .absorb import Feed, find_feeds
from .convolutions import ConvolutionPWLU
from .tables import fold_to_fewest_tensors, fold_to_hinges, fold_to_table

_TABLES, _HINGES = ("table", "operator", "in_place"), ("hinges", "convolutions")


@dataclass(frozen=True)
class Hinges:
    """A PWLU as a sum of hinges.

    Attributes:
        pwlu: its qualified name.
        knots: how many hinges there are; a channel with fewer bends has some of no effect.
        error: the largest distance from the PWLU that comes of the knots left out, in units of its output.
    """

    pwlu: str
    knots: int
    error: float


@dataclass(frozen=True)
class FoldReport:
    """Every PWLU, with the BatchNorm that it absorbed or the reason why none; `print` it for a table.

    Attributes:
        feeds: empty if no BatchNorms were to be absorbed.
        hinges: empty where the form is another one.
    """

    feeds: tuple[Feed, ...] = ()
    hinges: tuple[Hinges, ...] = ()

    def __str__(self) -> str:
        outcomes = [
            (feed.pwlu, f"nothing absorbed: {feed.reason}" if feed.norm is None else f"absorbed {feed.norm}")
            for feed in self.feeds
        ]
        outcomes += [(one.pwlu, f"{one.knots} hinges, error {one.error:.2g}") for one in self.hinges]
        width = max(len(name) for name, _ in outcomes)
        return "\n".join([*(f"{name:<{width}}  {text}" for name, text in outcomes), self.summary()])

    def summary(self) -> str:
        """Return the table's last line, e.g. `9 of 17 PWLUs absorbed the BatchNorm before them`."""
        sentences = []
        if self.feeds:
            absorbed = sum(feed.norm is not None for feed in self.feeds)
            sentences.append(f"{absorbed} of {len(self.feeds)} PWLUs absorbed the BatchNorm before them")
        if self.hinges:
            most, error = max(one.knots for one in self.hinges), max(one.error for one in self.hinges)
            sentences.append(f"{len(self.hinges)} PWLUs have {most} hinges at most, error {error:.2g}")
        return "; ".join(sentences)


def fold(
    model: nn.Module,
    *,
    absorb_batch_norm: bool = False,
    input_size: Sequence[int] = (3, 224, 224),
    form: str = "table",
    max_error: float = 0.0,
) -> nn.Module:
    """Return a copy of `model` for inference: in eval mode, every PWLU in the form of section 4.3.

    The copy computes what the model computes in eval mode, up to rounding (see `pwlu.FoldedPWLU`).
    Exported or traced it is plain tensor operations, but for the forms that say otherwise: torch.export,
    AOTInductor, the ONNX exporters and torch.jit.trace take it. A PWLU in phase I becomes the lines between
    the points of its starting function. Hooks on replaced modules are dropped. A state_dict of the copy can
    be loaded into `fold` of another model of the same architecture.

    With `absorb_batch_norm` every BatchNorm whose output goes into one PWLU and nowhere else is made part of
    that PWLU's tables, exactly: for a * x + b the boundaries become (B - b) / a, S becomes S * a, and O
    becomes S * b + O. A layer-wise PWLU becomes channel-wise. An `nn.Identity` takes the BatchNorm's place; a
    timm BatchNormAct2d is replaced as a whole. `fold_report` of the copy, a `pwlu.FoldReport`, says
    for every PWLU what it absorbed or why nothing.

    Which form is fast depends on what runs it:

    - "table": plain operations that every runtime and exporter has; eager mode and torch.compile run our
      kernel in their place.
    - "operator": the same, but what is exported or traced has the operator pwlu::folded in it. For ONNX
      Runtime's CPU provider with the library of `pwlu.onnx.custom_op_library`.
    - "in_place": as "operator", but torch.export records an operator that works in place, on a CPU. For
      AOTInductor where our library is loaded, which has it write over its input where nothing else reads
      that.
    - "hinges": a line and a sum of hinges. For OpenVINO and other compilers that fuse chains of element-wise
      operations. It is a `pwlu.ScaledHingePWLU`, with hinges at the same places in all channels, but where a
      `pwlu.HingePWLU`, with those of each channel, takes fewer tensors, as it may with `max_error`.
    - "convolutions": the hinges as two convolutions (`pwlu.ConvolutionPWLU`). For ONNX Runtime's CPU provider
      without our library, and others that run each operator by itself.

    The last two are exact up to rounding, for finite inputs. `max_error` lets them leave out knots, so that
    what remains is nearer than that to the PWLU; `fold_report` says how many remain, and how near it is.

    Args:
        model: any module with a PWLU in it, or a PWLU.
        absorb_batch_norm: whether to absorb BatchNorms; `model` then has to take one batched tensor.
        input_size: shape of one input without the batch dimension; `absorb_batch_norm` follows its data.
        form: "table", "operator", "in_place", "hinges" or "convolutions".
        max_error: of the last two: in units of a PWLU's output.

    Raises:
        ValueError: there is no PWLU; one has parameters that are not finite, or jumps and is to be hinges; or
            no BatchNorm can be absorbed, with the reasons.
    """
    _check_form(form, max_error)
    model = _copied(model)
    feeds = find_feeds(model, input_size) if absorb_batch_norm else ()
    norms = {feed.pwlu: feed.norm for feed in feeds if feed.norm is not None}
    if absorb_batch_norm and not norms:
        raise ValueError(f"no BatchNorm of {type(model).__name__} can be absorbed:\n{FoldReport(feeds)}")
    hinges: list[Hinges] = []

    def folded(name: str, module: PWLU, norm: _BatchNorm | None) -> nn.Module:
        if form in _TABLES:
            return fold_to_table(module, norm, exported=form)
        if form == "hinges":
            new, error = fold_to_fewest_tensors(module, norm, max_error=max_error)
            hinges.append(Hinges(name, new.num_knots, error))
            return new
        sides, error = fold_to_hinges(module, norm, max_error=max_error)
        hinges.append(Hinges(name, sides.num_knots, error))
        return ConvolutionPWLU(sides)

    model = _replace(model, _folded_modules(model, norms, folded))
    if feeds or hinges:
        model.fold_report = FoldReport(feeds, tuple(hinges))  # type: ignore[assignment]
    return model


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, its BatchNorms apart. Raises ValueError where nothing can be folded."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("model is wrapped in DistributedDataParallel: fold model.module instead")
    if not any(isinstance(module, PWLU) for module in model.modules()):
        raise ValueError(f"nothing to fold: {type(model).__name__} has no PWLU")
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        unfuse(module)
    return model


def _check_form(form: str, max_error: float) -> None:
    if form not in (*_TABLES, *_HINGES):
        raise ValueError(expected_one_of("form", form, (*_TABLES, *_HINGES)))
    if not 0 <= max_error < math.inf:
        raise ValueError(f"max_error is {max_error!r}, expected a finite number >= 0")
    if max_error and form in _TABLES:
        raise ValueError(f"max_error is {max_error!r}, but form={form!r} is exact; use form='hinges'")


def _folded_modules(
    model: nn.Module, norms: Mapping[str, str], fold_one: Callable[[str, PWLU, _BatchNorm | None], nn.Module]
) -> dict[nn.Module, nn.Module]:
    """Return what replaces each PWLU and each BatchNorm of `norms`, which maps names of PWLUs to theirs."""
    new: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        if not isinstance(module, PWLU):
            continue
        norm = model.get_submodule(norms[name]) if name in norms else None
        assert norm is None or isinstance(norm, _BatchNorm)
        try:
            new[module] = fold_one(name, module, norm)
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
