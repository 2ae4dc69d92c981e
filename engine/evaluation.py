"""What an evaluation finds, and what happens in a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Evaluation:
    """Metrics, the same on every process, and on the main process what else is worth keeping.

    `pictures` are uint8 (height, width, 3) by name; `results` are what JSON can hold, by name, too long for a
    line of the records.
    """

    metrics: Mapping[str, float]
    pictures: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What happened after `step` optimizer steps, which is `epoch` epochs.

    Kinds: `train` (values loss, its terms if there are several, lr, phase, images_per_second, and data_wait,
    the part of the time, 0 to 1, in which the training process waited for data), `realign`,
    `eval` (the task's metrics), `conversion` (at step 0 of a trained network with new activations: the
    metrics with the old ones, `<metric>_before`, and the new ones, `<metric>_after`; where calibrated,
    `largest_change` and `largest_output` as `pwlu.calibrate` reports them).
    """

    kind: str
    step: int
    epoch: float
    values: Mapping[str, float | int] = field(default_factory=dict)
    evaluation: Evaluation | None = None
