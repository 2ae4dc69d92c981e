"""What an evaluation finds."""

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
