"""What phase I tells its user: each thing once, by the group's first process."""

import sys
import warnings
from collections.abc import Mapping, Sequence

import torch.distributed as dist
from torch import Tensor, nn

from .module import PWLU
from .realignment import is_at_start
from .sharding import has_fsdp2, is_sharded

_SHOWN = 5  # names in a message
_ALIKE = 0.02  # relative: a checkpoint may be of bfloat16


def find_sites(model: nn.Module) -> dict[str, PWLU]:
    """Return the PWLUs of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}


class Remarks:
    """Warns about sites that phase I cannot do its work for."""

    def __init__(self, model: nn.Module, sites: Mapping[str, PWLU], group: dist.ProcessGroup | None) -> None:
        self._model, self._sites, self._group = model, sites, group
        self._left_out: Tensor | None = None  # bool per site, on the sites' device
        self._told: set[str] = set()

    def before_first_step(self) -> None:
        """Name what a checkpoint spoilt, and PWLUs that the phases or FSDP2 do not reach."""
        spoilt = [name for name, site in self._sites.items() if not _has_finite_statistics(site)]
        self._warn(spoilt, "running statistics that are not finite, from a checkpoint, start anew.")
        others = [name for name, site in self._sites.items() if not is_at_start(site, _ALIKE)]
        self._warn(
            others,
            "the points are not those of the starting function, to which phase I goes back. Is the "
            "checkpoint of a network with another `init`, or of phase II, without the state of "
            "TwoPhaseLearning?",
        )
        now, known = find_sites(self._model), {id(site) for site in self._sites.values()}
        unknown = [name for name, module in now.items() if id(module) not in known]
        self._warn(
            unknown,
            "not in phase I, since TwoPhaseLearning was constructed before the model got it. Construct it "
            "after all changes of the model's modules.",
        )
        if has_fsdp2(self._model):
            whole = [name for name, module in now.items() if not is_sharded(module.left)]
            self._warn(
                whole,
                "not sharded, though the model is. FSDP2 does not average the gradients of `ignored_params`: "
                "every process will learn another function. Let fully_shard take all parameters.",
            )

    def note_left_out(self, left_out: Tensor, step: int) -> None:
        """Note the sites, bool, that left the step out; warn now if that does not stop a device.

        `step` is counted from 1.
        """
        self._left_out = left_out if self._left_out is None else self._left_out | left_out
        # A look at a GPU's numbers waits for it: after steps 1, 2, 4, 8, ... only.
        if left_out.is_cpu or step & (step - 1) == 0:
            self.tell_left_out()

    def tell_left_out(self) -> None:
        """Name the sites that left a step out and were not named before."""
        new = [name for name in self._names_left_out() if name not in self._told]
        self._told.update(new)
        self._warn(
            new,
            "the input held a value that is not finite, or too large to be squared in float32. A step with "
            "such a value has no part in the statistics (Eq. 5).",
        )

    def after_realignment(self) -> None:
        """Name the sites that keep their boundaries, since they have no statistics."""
        self.tell_left_out()
        silent = [name for name, site in self._sites.items() if not has_statistics(site)]
        spoilt = self._names_left_out()
        without = [name for name in silent if name not in spoilt]
        self._warn(
            without,
            "no input (or only zeros) in phase I, so no realignment: the boundaries stay at +-`bound`. "
            "Statistics are collected in training mode only. Is the part in eval mode, unused, or no longer "
            "in the model? torch's convert_sync_batchnorm drops the activations of timm's BatchNormAct2d; "
            "timm.layers.convert_sync_batchnorm keeps them.",
        )
        self._warn(
            [name for name in silent if name in spoilt],
            "no step of phase I had finite input, so no realignment: the boundaries stay at +-`bound`.",
        )

    def _names_left_out(self) -> list[str]:
        if self._left_out is None:
            return []
        return [name for name, was in zip(self._sites, self._left_out.tolist(), strict=True) if was]

    def _warn(self, names: Sequence[str], text: str) -> None:
        warn_about(names, text, self._group)


def warn_about(names: Sequence[str], text: str, group: dist.ProcessGroup | None = None) -> None:
    """Warn about the PWLUs of these names, if there are any, by the group's first process."""
    is_first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank(group) == 0
    if names and is_first:
        warnings.warn(f"PWLU {shown_names(names)}: {text}", stacklevel=_level_of_the_loop())


def shown_names(names: Sequence[str]) -> str:
    """Return the first of these names in quotation marks, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _level_of_the_loop() -> int:
    """Return the stack level, for the caller, of the line outside of this package and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("pwlu", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def has_statistics(site: PWLU) -> bool:
    """Return whether there was input, other than zeros."""
    return bool(site.running_mean.any() or site.running_std.any())


def _has_finite_statistics(site: PWLU) -> bool:
    return bool((site.running_mean.isfinite() & site.running_std.isfinite()).all())
