"""Networks from scratch or with trained weights, whose activations then give way to the configured ones."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.config.experiment import Experiment
from engine.data.classes import Classes
from engine.errors import UserError, sentence_of
from engine.records.console import listed
from engine.training.checkpoint import CheckpointError
from engine.training.origin import Origin, exchange_activations
from engine.training.starting_weights import ORIGINAL, StartingWeights
from engine.training.state import not_at_start
from pwlu import ReplacementReport, replace_activations

Make = Callable[..., nn.Module] | None
Built = tuple[nn.Module, ReplacementReport]
HEAD = "the layers that tell the classes"
ALL_BUT_BACKBONE = "all layers but the backbone's"
_NO_START = ("apl", "pau", "frelu", "pwlu")  # names of what learns in more ways than a start can have


class NetworkError(UserError, ValueError):
    """A network cannot be built as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Networks:
    """One network, to be begun in several ways.

    Attributes:
        build: called as `build(make, num_classes=...)`, and with `init="replaced"`, `pretrained=True` or
            `input_size`.
        put: puts activations into what `root` gives of a built network: `put(root, make, init=...)`.
        factory: gives the `make` of an activation: `models.activation_factory`.
        activation: its arguments for the configured one.
        num_classes: without background.
        root: the network itself, or of a detector its probe.
        backbone: gives timm's network in a detector; None where that is the network itself.
    """

    build: Callable[..., Built]
    put: Callable[..., ReplacementReport]
    factory: Callable[..., Make]
    activation: Mapping[str, Any]
    num_classes: int
    root: Callable[[Any], nn.Module] = lambda model: model
    backbone: Callable[[nn.Module], nn.Module] | None = None

    def begin(
        self, weights: StartingWeights | None, experiment: Experiment, classes: Classes, *, pretrained: bool
    ) -> tuple[nn.Module, Origin]:
        """Begin with the weights of a file, with timm's, or from scratch.

        `experiment` and `classes` are those of the training. Raises CheckpointError for weights that do not
        fit, and NetworkError for what `build` and `put` refuse.
        """
        try:
            if weights is not None:
                keeps_activations = weights.keeps_activations(experiment)
                return self.from_weights(weights, weights.has_classes(classes), keeps_activations)
            return self.from_timm() if pretrained else self.from_scratch()
        except ValueError as error:
            if isinstance(error, UserError) or sentence_of(error) is None:
                raise
            raise NetworkError(str(error)) from error  # every process meets it: it is said once

    def from_scratch(self) -> tuple[nn.Module, Origin]:
        model, report = self._built(self.activation)
        return model, Origin(report)

    def from_timm(self) -> tuple[nn.Module, Origin]:
        """Begin with timm's trained weights, or a detector's backbone does. Raises ValueError without any."""
        model, _ = self._built(ORIGINAL, pretrained=True)
        if self.backbone is not None:
            new = ALL_BUT_BACKBONE
        else:
            known: Any = model.pretrained_cfg
            new = "" if known["num_classes"] == self.num_classes else HEAD
        return model, exchange_activations(self.root(model), self._put, new)

    def from_weights(
        self, weights: StartingWeights, has_classes: bool, keeps_activations: bool
    ) -> tuple[nn.Module, Origin]:
        """Begin with the weights of a file: their network is built, before its activations give way.

        The head, all that depends on the number of classes, is new unless the weights `has_classes`, and so
        many. `keeps_activations`: the configured activations are those of the weights. Raises
        CheckpointError, which names what else does not fit.
        """
        used, backbone = weights.activation, self.backbone if weights.is_classifier else None
        if _start(self.activation) and not keeps_activations and used["name"] in _NO_START:
            go_on = "" if backbone else f"to go on with that give {_words(used)}, else "
            raise CheckpointError(
                f"{weights.path}: activation.init=replaced: no PWLU can start as what its {used['name']} "
                f"learned; {go_on}give another activation.init"
            )
        if backbone is None:
            model, report, new = self._load(weights, has_classes)
        else:
            model, report, new = self._load_backbone(weights, backbone)
        if not weights.has_learned:
            _require_known_starts(model, weights)
        if keeps_activations:
            origin = Origin(report, True, new, keeps_functions=weights.has_learned)
        else:
            origin = exchange_activations(self.root(model), self._put, new)
        self._require_configured(model, weights)
        return model, origin

    def _require_configured(self, model: nn.Module, weights: StartingWeights) -> None:
        """Raise CheckpointError unless the activations are those that the configuration alone describes.

        Else an evaluation, which knows nothing of where the weights came from, would compute others.
        """
        with torch.device("meta"):
            configured, report = self._built(self.activation)
        one, other = (dict(self.root(network).named_modules()) for network in (model, configured))
        for site in report.sites:
            there, here = (type(modules.get(site.name)) for modules in (one, other))
            if there is here:
                continue
            remedy = "the data.image_size_px of the weights, since another one has other sites"
            if self.activation["name"] == "original":
                remedy = _words(weights.activation)
            raise CheckpointError(
                f"{weights.path}: {site.name} was trained with {there.__name__}, but the configuration has "
                f"{here.__name__} there; give {remedy}, or another activation"
            )

    def _built(self, activation: Mapping[str, Any], num_classes: int | None = None, **options: Any) -> Built:
        options |= {"num_classes": num_classes or self.num_classes, **_start(activation)}
        return self.build(self.factory(**activation), **options)

    def _put(self, root: nn.Module) -> ReplacementReport:
        return self.put(root, self.factory(**self.activation), **_start(self.activation))

    def _load(self, weights: StartingWeights, has_classes: bool) -> tuple[nn.Module, ReplacementReport, str]:
        options: dict[str, Any] = {} if weights.input_size is None else {"input_size": weights.input_size}
        model, report = self._built(weights.activation, **options)
        with torch.device("meta"):
            other, _ = self._built(weights.activation, self.num_classes + 1, **options)
        own, others = _shapes(model.state_dict()), _shapes(other.state_dict())
        given, head = _shapes(weights.tensors), {name for name in own if own[name] != others[name]}
        is_new = not has_classes or any(own[name] != given.get(name) for name in head)
        left_out = head if is_new else set()
        loaded = {name: tensor for name, tensor in weights.tensors.items() if name not in left_out}
        load_tensors(model, loaded, weights.path, may_lack=left_out)
        return model, report, HEAD if is_new else ""

    def _load_backbone(
        self, weights: StartingWeights, backbone: Callable[[nn.Module], nn.Module]
    ) -> tuple[nn.Module, ReplacementReport, str]:
        model, report = self._built(ORIGINAL)
        stages = backbone(model)
        make = self.factory(**weights.activation)
        if make is not None and weights.input_size is not None:
            start = _start(weights.activation)
            replace_activations(stages, make=make, input_size=weights.input_size, **start)
        parts = {name for name, _ in stages.named_children()}  # all but the classifier
        own = {name: tensor for name, tensor in weights.tensors.items() if name.split(".")[0] in parts}
        load_tensors(stages, own, weights.path)
        return model, report, ALL_BUT_BACKBONE


def _start(activation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes its PWLUs start as what was there, where it says so."""
    return {"init": "replaced"} if activation.get("init") == "replaced" else {}


def load_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], source: object, *, may_lack: Collection[str] = ()
) -> None:
    """Load a state dict. Raises CheckpointError with the first names of what does not fit."""
    own, given = _shapes(model.state_dict()), _shapes(tensors)
    unfit = {name for name in own.keys() & given.keys() if own[name] != given[name]}
    fitting = {name: tensor for name, tensor in tensors.items() if name not in unfit}
    keys = model.load_state_dict(fitting, strict=False)
    problems = {
        "it lacks": [name for name in keys.missing_keys if name not in may_lack and name not in unfit],
        "it has besides": list(keys.unexpected_keys),
        "of another shape:": [
            f"{name}, there {given[name]}, here {own[name]}" for name in own if name in unfit
        ],
    }
    found = [f"{problem} {listed(names)}" for problem, names in problems.items() if names]
    if found:
        raise CheckpointError(f"{source} does not fit this network; {'; '.join(found)}")


def _require_known_starts(model: nn.Module, weights: StartingWeights) -> None:
    # Of a run that started from other activations than the network's own: `replaced` does not tell which.
    if unknown := not_at_start(model):
        raise CheckpointError(
            f"{weights.path}: a checkpoint of phase I, in which PWLUs do not start as the network's own "
            f"activations: {listed(unknown)}; give the weights that its run began from, or a later checkpoint"
        )


def _words(activation: Mapping[str, Any]) -> str:
    of_pwlu = ("num_intervals", "mode") if activation["name"] == "pwlu" else ()
    keys = [key for key in ("name", *of_pwlu) if key in activation]
    return " ".join(f"activation.{key}={activation[key]}" for key in keys)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
