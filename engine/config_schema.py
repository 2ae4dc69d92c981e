"""The configuration's shape: one dataclass per section, one documented field per key.

Units stand in the names (`_epochs`, `_steps`, `_px`). Fields without a default must come from a YAML file or
the command line. Why the values the paper does not give are what they are: `configs/README.md`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from omegaconf import MISSING

# The same names as models.ACTIVATIONS, which this package must not import; a test compares the two.
ACTIVATION_NAMES = ("relu", "swish", "prelu", "apl", "pau", "frelu", "pwlu")


@dataclass
class ModelConfig:
    """Which network."""

    name: str = MISSING  # timm's name: resnet18, mobilenetv2_100 ...


@dataclass
class ActivationConfig:
    """Which activation takes the place of the network's own; all keys but `name` concern PWLU only."""

    name: str = "pwlu"  # one of ACTIVATION_NAMES
    num_intervals: int = 16  # the paper's N
    mode: str = "channel"  # channel: one function per channel; layer: one per activation site
    bound: float = 3.0  # boundaries start at [-bound, bound]: fix-init-x of Tables 5 and 6


@dataclass
class DataConfig:
    """Which images, and how they are cut and changed."""

    kind: str = "imagefolder"  # imagefolder | webdataset | digits
    root: str = "data/imagenet"  # holds train/ and val/, or train-*.tar and val-*.tar; unused by digits
    workers: int = 8  # loading processes per training process; 0 loads in the training process
    image_size_px: int = 224  # side of the square the network sees
    augmentation: str = "standard"  # standard (random resized crop + flip) | autoaugment | none
    eval_crop_ratio: float = 0.875  # evaluation resizes the shorter side to image_size_px / ratio, then crops
    broken_images: str = "error"  # error: stop and name the file; skip: leave it out and count it


@dataclass
class OptimizerConfig:
    """Stochastic gradient descent with momentum, and the loss's label smoothing."""

    peak_lr: float = MISSING  # highest learning rate of the schedule, for the global batch
    weight_decay: float = MISSING  # of convolution and linear weights
    momentum: float = 0.9
    nesterov: bool = False
    activation_weight_decay: float = 0.0  # of the activations' own parameters
    norm_and_bias_weight_decay: float = 0.0  # of normalisation parameters and biases
    activation_lr_multiplier: float = 1.0  # learning rate of the activations' parameters over the others'
    label_smoothing: float = 0.0
    clip_grad_norm: float = 0.0  # greatest gradient norm; 0 switches clipping off
    ema_decay: float = 0.0  # of the averaged weights; 0 switches averaging off


@dataclass
class ScheduleConfig:
    """One-cycle cosine: up from start to peak during the warm-up, down to the end value for the rest."""

    warmup_epochs: float = MISSING
    start_lr_ratio: float = 0.04  # first learning rate / peak_lr
    final_lr_ratio: float = 4e-6  # last learning rate / peak_lr


@dataclass
class RuntimeConfig:
    """How the run is executed and how often it speaks; none of it is part of the experiment but `amp`."""

    device: str = "auto"  # auto | cpu | cuda
    amp: str = "off"  # off | bf16 | fp16
    channels_last: bool = False
    compile: bool = False
    device_batch_size: int = 64  # most images per device and forward; accumulation is derived from it
    log_every_steps: int = 50
    checkpoint_every_steps: int = 500
    eval_every_epochs: int = 1
    plot_every_epochs: int = 5


@dataclass
class TrainConfig:
    """One training run of a classifier."""

    output: str = ""  # run folder; runs/<name of the YAML file> unless given
    seed: int = 0
    epochs: int = MISSING
    phase1_epochs: float = 5.0  # T', the length of phase I; 0 = no phase I: fix-init of Tables 5 and 6
    global_batch_size: int = 1024  # images per optimizer step over all devices
    model: ModelConfig = field(default_factory=ModelConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


# Keys whose value is one of a few words.
CHOICES: dict[str, tuple[str, ...]] = {
    "activation.name": ACTIVATION_NAMES,
    "activation.mode": ("channel", "layer"),
    "data.kind": ("imagefolder", "webdataset", "digits"),
    "data.augmentation": ("standard", "autoaugment", "none"),
    "data.broken_images": ("error", "skip"),
    "runtime.device": ("auto", "cpu", "cuda"),
    "runtime.amp": ("off", "bf16", "fp16"),
}

# What a number must be: in words, and as a test that also turns away NaN and infinity.
Bounds = tuple[str, Callable[[float], bool]]
POSITIVE: Bounds = ("a number greater than 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Bounds = ("a number, 0 or greater", lambda value: 0 <= value < math.inf)
BELOW_ONE: Bounds = ("a number in [0, 1)", lambda value: 0 <= value < 1)
UP_TO_ONE: Bounds = ("a number in (0, 1]", lambda value: 0 < value <= 1)
SEED: Bounds = ("a number in [0, 2^63)", lambda value: 0 <= value < 2**63)
FROM_ZERO_TO_ONE: Bounds = ("a number in [0, 1]", lambda value: 0 <= value <= 1)

BOUNDS: dict[str, Bounds] = {
    "seed": SEED,
    "epochs": POSITIVE,
    "phase1_epochs": NOT_NEGATIVE,
    "global_batch_size": POSITIVE,
    "activation.num_intervals": POSITIVE,
    "activation.bound": POSITIVE,
    "data.workers": NOT_NEGATIVE,
    "data.image_size_px": POSITIVE,
    "data.eval_crop_ratio": UP_TO_ONE,
    "optimizer.peak_lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.activation_weight_decay": NOT_NEGATIVE,
    "optimizer.norm_and_bias_weight_decay": NOT_NEGATIVE,
    "optimizer.activation_lr_multiplier": NOT_NEGATIVE,
    "optimizer.label_smoothing": BELOW_ONE,
    "optimizer.clip_grad_norm": NOT_NEGATIVE,
    "optimizer.ema_decay": BELOW_ONE,
    "schedule.warmup_epochs": NOT_NEGATIVE,
    "schedule.start_lr_ratio": UP_TO_ONE,
    "schedule.final_lr_ratio": FROM_ZERO_TO_ONE,
    "runtime.device_batch_size": POSITIVE,
    "runtime.log_every_steps": POSITIVE,
    "runtime.checkpoint_every_steps": POSITIVE,
    "runtime.eval_every_epochs": POSITIVE,
    "runtime.plot_every_epochs": POSITIVE,
}
