"""What a configuration is made of: the sections that both trainers have, and how values are checked.

One dataclass per section, one documented field per key; sections that a room of the engine reads whole stand
there (`optimizer` in engine/training/optimizer.py, `schedule` in engine/training/schedule.py). Units stand in
the names (`_epochs`, `_steps`, `_px`). Fields without a default must come from a YAML file or the command
line. Why the values the paper does not give are what they are: `docs/choices.md`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.training.optimizer import OptimizerOptions

# What a number must be: in words, and as a test that also turns away NaN and infinity.
Bounds = tuple[str, Callable[[float], bool]]
POSITIVE: Bounds = ("a number greater than 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Bounds = ("a number, 0 or greater", lambda value: 0 <= value < math.inf)
BELOW_ONE: Bounds = ("a number in [0, 1)", lambda value: 0 <= value < 1)
UP_TO_ONE: Bounds = ("a number in (0, 1]", lambda value: 0 < value <= 1)
SEED: Bounds = ("a number in [0, 2^63)", lambda value: 0 <= value < 2**63)
FROM_ZERO_TO_ONE: Bounds = ("a number in [0, 1]", lambda value: 0 <= value <= 1)

# An impossible combination: the keys concerned and a sentence.
Conflict = tuple[tuple[str, str], str]

# The same names as models.ACTIVATIONS, which this package must not import; a test compares the two.
ACTIVATION_NAMES = ("relu", "swish", "prelu", "apl", "pau", "frelu", "pwlu")


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Which activation takes the place of the network's own; all keys but `name` concern PWLU only."""

    name: str = "pwlu"  # one of ACTIVATION_NAMES
    num_intervals: int = 16  # the paper's N
    mode: str = "channel"  # channel: one function per channel; layer: one per activation site
    bound: float = 3.0  # boundaries start at [-bound, bound]: fix-init-x of Tables 5 and 6


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the run is executed and how often it reports; none of it is part of the experiment but `amp`."""

    device: str = "auto"  # auto | cpu | cuda
    amp: str = "off"  # off | bf16 | fp16
    device_batch_size: int  # most images per device and forward; accumulation is derived from it
    log_every_steps: int = 50
    checkpoint_every_steps: int


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    output: str  # run folder; runs/<name of the YAML file> unless given
    seed: int = 0
    phase1_epochs: float = 5.0  # T', the length of phase I; 0 = no phase I: fix-init of Tables 5 and 6
    global_batch_size: int  # images per optimizer step over all devices
    activation: ActivationConfig
    optimizer: OptimizerOptions
    runtime: RuntimeConfig


C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Schema(Generic[C]):
    """A kind of configuration: its dataclass, and what its values must be.

    Attributes:
        kind: the dataclass.
        choices: the words that a key may have, by dotted key.
        bounds: the bounds of a number, by dotted key.
        conflicts: finds combinations that cannot work.
        renamed: keys that have another name now, with that name.
    """

    kind: type[C]
    choices: Mapping[str, tuple[str, ...]]
    bounds: Mapping[str, Bounds]
    conflicts: Callable[[C], Sequence[Conflict]]
    renamed: Mapping[str, str] = field(default_factory=dict)


SHARED_CHOICES = {
    "activation.name": ACTIVATION_NAMES,
    "activation.mode": ("channel", "layer"),
    "runtime.device": ("auto", "cpu", "cuda"),
    "runtime.amp": ("off", "bf16", "fp16"),
}
SHARED_BOUNDS = {
    "seed": SEED,
    "phase1_epochs": NOT_NEGATIVE,
    "global_batch_size": POSITIVE,
    "activation.num_intervals": POSITIVE,
    "activation.bound": POSITIVE,
    "data.workers": NOT_NEGATIVE,
    "optimizer.peak_lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.activation_weight_decay": NOT_NEGATIVE,
    "optimizer.norm_and_bias_weight_decay": NOT_NEGATIVE,
    "optimizer.activation_lr_multiplier": NOT_NEGATIVE,
    "optimizer.clip_grad_norm": NOT_NEGATIVE,
    "optimizer.ema_decay": BELOW_ONE,
    "runtime.device_batch_size": POSITIVE,
    "runtime.log_every_steps": POSITIVE,
    "runtime.checkpoint_every_steps": POSITIVE,
}


def optimizer_conflicts(optimizer: OptimizerOptions) -> list[Conflict]:
    """Return the impossible combinations of the optimizer's keys."""
    if optimizer.nesterov and optimizer.momentum == 0:
        sentence = "optimizer.nesterov=true needs optimizer.momentum greater than 0"
        return [(("optimizer.nesterov", "optimizer.momentum"), sentence)]
    return []
