"""Networks from scratch or with trained weights, whose activations then give way to the configured ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pwlu import ReplacementReport

from .activations import NO_START, REPLACED, activation_factory
from .origin import Origin, exchange_activations

Make = Callable[..., nn.Module] | None
Built = tuple[nn.Module, ReplacementReport]


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
        name = None if weights.activation is None else weights.activation["name"]
        if self.init == REPLACED and not keeps_activations and name in NO_START:
            raise UnfitWeights(
                f"{weights.path}: activation.init=replaced: no PWLU can start as what its {name} learned; to "
                "go on with that give its own activation.name, activation.num_intervals and activation.mode, "
                "else another activation.init"
            )
        model, report, is_new_head = self._load(weights, has_classes)
        if keeps_activations:
            origin = Origin(report, True, is_new_head, keeps_functions=weights.has_learned)
        else:
            origin = exchange_activations(self.root(model), self._put, is_new_head=is_new_head)
        with torch.device("meta"):
            configured, _ = self.build(self.make, num_classes=self.num_classes, init=self.init)
        _require_like(model, configured, weights.path)
        return model, origin

    def _put(self, root: nn.Module) -> ReplacementReport:
        return self.put(root, self.make, init=self.init)

    def _load(self, weights: TrainedWeights, has_classes: bool) -> tuple[nn.Module, ReplacementReport, bool]:
        make = None if weights.activation is None else activation_factory(**weights.activation)
        if weights.activation is None and self.backbone is not None:
            return self._load_backbone(weights, self.backbone)
        options = {} if weights.input_size is None else {"input_size": weights.input_size}
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


def _require_like(model: nn.Module, configured: nn.Module, source: object) -> None:
    # Else nothing that knows only the configuration could load what is trained from here.
    one, other = (_shapes(network.state_dict()) for network in (model, configured))
    different = [
        name
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and not name.endswith(".init_slope")
    ]
    if different:
        raise UnfitWeights(
            f"{source}: with its activations the network is not the one that the configuration describes, at "
            f"{_few(different)}. Images of another size have other sites: take the data.image_size_px that "
            "the weights were trained with, or another activation"
        )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f', ... ({len(names)} in all)' if len(names) > 3 else ''}"
