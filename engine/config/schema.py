"""What both trainers' configurations have in common.

One dataclass per section, one documented field per key; its type says which words or numbers it may be.
Sections that a package of the engine reads whole are defined there: `optimizer` in
engine/training/optimizer.py, `schedule` in engine/training/schedule.py, `data` in engine/data/options.py.
Units are in the names (`_epochs`, `_steps`, `_px`). Fields without a default must come from a YAML file or
the command line. Why the values the paper does not give are what they are: `docs/choices.md`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, get_args

from engine.bounds import FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from engine.paths import WrittenPath
from engine.training.optimizer import OptimizerOptions

# Those of models.ACTIVATIONS, which this package must not import, and `original`; a test compares the two.
ActivationName = Literal["relu", "swish", "prelu", "apl", "pau", "frelu", "pwlu", "leaky_relu", "original"]
ACTIVATION_NAMES: tuple[str, ...] = get_args(ActivationName)
# Those of pwlu.starting, and `replaced`; a test compares the two.
StartingName = Literal[
    "relu", "leaky_relu", "silu", "gelu", "hardswish", "relu6", "tanh", "identity", "replaced"
]


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Which activation takes the place of the network's own; all keys but `name` concern PWLU only."""

    name: ActivationName = "pwlu"  # original: the network keeps its own; leaky_relu: slope 0.25, fixed
    num_intervals: PositiveInt = 16  # the paper's N
    mode: Literal["channel", "layer"] = "channel"  # one function per channel, or one per activation site
    bound: PositiveFloat = 3.0  # boundaries start at [-bound, bound]: fix-init-x of Tables 5 and 6
    init: StartingName = "relu"  # the starting function; replaced: the activation that was there
    init_slope: FiniteFloat = 0.25  # of init=leaky_relu for negative inputs


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the run is executed and how often it reports; none of it is part of the experiment but `amp`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    amp: Literal["off", "bf16", "fp16"] = "off"  # mixed precision of the forward pass
    device_batch_size: PositiveInt  # most images per device and forward; accumulation is derived from it
    fuse_batch_norm: bool = True  # PWLUs compute the BatchNorms before them: less time and memory
    log_every_steps: PositiveInt = 50  # a line and a record of the losses
    checkpoint_every_steps: PositiveInt  # what a kill may cost


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    output: WrittenPath  # run folder; runs/<name of the YAML file> unless given
    seed: Seed = 0  # of the weights, the order of the images and the augmentation
    phase1_epochs: NonNegativeFloat = 5.0  # T', the length of phase I; 0: none, fix-init of Tables 5 and 6
    global_batch_size: PositiveInt  # images per optimizer step over all devices
    activation: ActivationConfig
    optimizer: OptimizerOptions
    runtime: RuntimeConfig


C = TypeVar("C", bound=RunConfig)
# An impossible combination: the keys concerned and a sentence.
Conflict = tuple[tuple[str, str], str]


@dataclass(frozen=True)
class Schema(Generic[C]):
    """A kind of configuration: its dataclass, what finds combinations that cannot work, and renamed keys."""

    kind: type[C]
    conflicts: Callable[[C], Sequence[Conflict]]
    renamed: Mapping[str, str] = field(default_factory=dict)


def common_conflicts(config: RunConfig) -> list[Conflict]:
    """Return the impossible combinations of the keys that both trainers have."""
    conflicts: list[Conflict] = []
    optimizer, name = config.optimizer, config.activation.name
    if optimizer.nesterov and optimizer.momentum == 0:
        sentence = "optimizer.nesterov=true needs optimizer.momentum greater than 0"
        conflicts.append((("optimizer.nesterov", "optimizer.momentum"), sentence))
    if optimizer.train_only == "activation" and name == "pwlu" and config.phase1_epochs > 0:
        sentence = (
            f"optimizer.train_only=activation leaves nothing to learn in phase I, but phase1_epochs is "
            f"{config.phase1_epochs:g}; give phase1_epochs=0"
        )
        conflicts.append((("optimizer.train_only", "phase1_epochs"), sentence))
    return [*conflicts, *_start_conflicts(config.activation)]


def _start_conflicts(activation: ActivationConfig) -> list[Conflict]:
    # A PWLU's other keys say how large and where it is; of these a user expects the function itself.
    if activation.init_slope != ActivationConfig.init_slope and activation.init != "leaky_relu":
        sentence = f"activation.init_slope={activation.init_slope:g} belongs to activation.init=leaky_relu"
        return [(("activation.init_slope", "activation.init"), f"{sentence}, got {activation.init}")]
    if activation.init != ActivationConfig.init and activation.name != "pwlu":
        sentence = f"activation.init={activation.init} is how a PWLU starts, but activation.name is "
        return [(("activation.init", "activation.name"), sentence + activation.name)]
    return []
