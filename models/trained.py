"""Networks from scratch or with trained weights, whose activations then give way to the configured ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pwlu import PWLU, ReplacementReport
from pwlu.realignment import is_at_start

from .activations import NO_START, REPLACED, activation_factory
from .origin import Origin, exchange_activations

Make = Callable[..., nn.Module] | None
Built = tuple[nn.Module, ReplacementReport]
_ALIKE = 1e-4  # relative: other processors compute starting functions to other last bits


class UnfitWeights(ValueError):
    """Trained weights are not those of the network that they are for; the message says where."""


class TrainedWeights(Protocol):
    """Weights from a file, and what is known of the network that they are of."""

    @property
    def path(self) -> object:
        """The file."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights by name."""

    @property
    def activation(self) -> Mapping[str, Any] | None:
        """The arguments of `activation_factory` for its activations; None: timm's network with its own."""

    @property
    def input_size(self) -> Sequence[int] | None:
        """That of `build_classifier` when its activations were replaced; None where that does not matter."""

    @property
    def has_learned(self) -> bool:
        """Its activations have."""


@dataclass(frozen=True)
class Networks:
    """One network, to be begun in several ways.

    Attributes:
        build: called as `build(make, num_classes=..., init=...)`, and with `pretrained=True` or `input_size`.
        put: puts activations into what `root` gives of a built network: `put(root, make, init=...)`.
        make: its activations, see `activation_factory`.
        init: "replaced" if PWLUs start as what was there.
        num_classes: without background.
        root: the network itself, or of a detector its probe.
        backbone: gives timm's network in a detector; None where that is the network itself.
    """

    build: Callable[..., Built]
    put: Callable[..., ReplacementReport]
    make: Make
    init: str | None
    num_classes: int
    root: Callable[[Any], nn.Module] = lambda model: model
    backbone: Callable[[nn.Module], nn.Module] | None = None

    def from_scratch(self) -> tuple[nn.Module, Origin]:
        model, report = self.build(self.make, num_classes=self.num_classes, init=self.init)
        return model, Origin(report)

    def from_timm(self) -> tuple[nn.Module, Origin]:
        """Begin with timm's trained weights, or a detector's backbone does. Raises ValueError without any."""
        model, _ = self.build(None, num_classes=self.num_classes, pretrained=True)
        known: Any = getattr(model, "pretrained_cfg", None)  # a detector has none, and heads of its own
        is_new_head = known is None or known["num_classes"] != self.num_classes
        return model, exchange_activations(self.root(model), self._put, is_new_head=is_new_head)

    def from_weights(
        self, weights: TrainedWeights, *, has_classes: bool, keeps_activations: bool
    ) -> tuple[nn.Module, Origin]:
        """Begin with the weights of a file: their network is built, before its activations give way.

        The head, all that depends on the number of classes, is new unless the weights `has_classes`, and so
        many. `keeps_activations`: the configured activations are those of the weights. Raises UnfitWeights,
        which names what else does not fit.
        """
        used = {} if weights.activation is None else weights.activation
        if self.init == REPLACED and not keeps_activations and used.get("name") in NO_START:
            raise UnfitWeights(
                f"{weights.path}: activation.init=replaced: no PWLU can start as what its {used['name']} "
                f"learned; to go on with that give {_words(used)}, else another activation.init"
            )
        model, report, is_new_head = self._load(weights, has_classes)
        if not weights.has_learned:
            _require_known_starts(model, weights.path)
        if keeps_activations:
            origin = Origin(report, True, is_new_head, keeps_functions=weights.has_learned)
        else:
            origin = exchange_activations(self.root(model), self._put, is_new_head=is_new_head)
        self._require_configured(model, origin, weights)
        return model, origin

    def _require_configured(self, model: nn.Module, origin: Origin, weights: TrainedWeights) -> None:
        """Raise UnfitWeights unless the activations are those that the configuration alone describes.

        Else an evaluation, which knows nothing of where the weights came from, would compute others.
        """
        with torch.device("meta"):
            configured, report = self.build(self.make, num_classes=self.num_classes, init=self.init)
        one, other = (dict(self.root(network).named_modules()) for network in (model, configured))
        for site in report.sites:
            there, here = (type(modules.get(site.name)) for modules in (one, other))
            if there is here:
                continue
            remedy = "the data.image_size_px of the weights, since another one has other sites"
            if self.make is None and weights.activation is not None:
                remedy = _words(weights.activation)
            raise UnfitWeights(
                f"{weights.path}: {site.name} was trained with {there.__name__}, but the configuration has "
                f"{here.__name__} there; give {remedy}, or another activation"
            )

    def _put(self, root: nn.Module) -> ReplacementReport:
        return self.put(root, self.make, init=self.init)

    def _load(self, weights: TrainedWeights, has_classes: bool) -> tuple[nn.Module, ReplacementReport, bool]:
        make = None if weights.activation is None else activation_factory(**weights.activation)
        if weights.activation is None and self.backbone is not None:
            return self._load_backbone(weights, self.backbone)
        options: dict[str, Any] = {} if weights.input_size is None else {"input_size": weights.input_size}
        if weights.activation is not None and weights.activation.get("init") == REPLACED:
            options["init"] = REPLACED
        model, report = self.build(make, num_classes=self.num_classes, **options)
        with torch.device("meta"):
            other, _ = self.build(make, num_classes=self.num_classes + 1, **options)
        own, others = _shapes(model.state_dict()), _shapes(other.state_dict())
        given, head = _shapes(weights.tensors), {name for name in own if own[name] != others[name]}
        is_new_head = not has_classes or any(own[name] != given.get(name) for name in head)
        left_out = head if is_new_head else set()
        loaded = {name: tensor for name, tensor in weights.tensors.items() if name not in left_out}
        load_tensors(model, loaded, weights.path, may_lack=left_out)
        return model, report, is_new_head

    def _load_backbone(
        self, weights: TrainedWeights, backbone: Callable[[nn.Module], nn.Module]
    ) -> tuple[nn.Module, ReplacementReport, bool]:
        model, report = self.build(None, num_classes=self.num_classes)
        stages = backbone(model)
        own = stages.state_dict().keys()  # all but the classifier
        own_part = {name: tensor for name, tensor in weights.tensors.items() if name in own}
        load_tensors(stages, own_part, weights.path)
        return model, report, True


def load_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], source: object, *, may_lack: Collection[str] = ()
) -> None:
    """Load a state dict. Raises UnfitWeights with the first names of what does not fit."""
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
    found = [f"{problem} {_few(names)}" for problem, names in problems.items() if names]
    if found:
        raise UnfitWeights(f"{source} does not fit this network; {'; '.join(found)}")


def _require_known_starts(model: nn.Module, source: object) -> None:
    # Of a run that started from other activations than the network's own: `replaced` does not tell which.
    sites = {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}
    unknown = [name for name, site in sites.items() if not is_at_start(site, _ALIKE)]
    if unknown:
        raise UnfitWeights(
            f"{source}: a checkpoint of phase I, in which PWLUs do not start as the network's own "
            f"activations: {_few(unknown)}; give the weights that its run started from, or a later checkpoint"
        )


def _words(activation: Mapping[str, Any]) -> str:
    of_pwlu = ("num_intervals", "mode") if activation["name"] == "pwlu" else ()
    keys = [key for key in ("name", *of_pwlu) if key in activation]
    return " ".join(f"activation.{key}={activation[key]}" for key in keys)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f', ... ({len(names)} in all)' if len(names) > 3 else ''}"
