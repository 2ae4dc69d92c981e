"""Numbers with bounds, the types of a configuration's fields."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """What a number must be: in words, and as a predicate that rejects NaN and infinity."""

    words: str
    hold: Callable[[float], bool]


_POSITIVE = Bounds("a number greater than 0", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE = Bounds("a number, 0 or greater", lambda value: 0 <= value < math.inf)
PositiveInt = Annotated[int, _POSITIVE]
PositiveFloat = Annotated[float, _POSITIVE]
NonNegativeInt = Annotated[int, _NOT_NEGATIVE]
NonNegativeFloat = Annotated[float, _NOT_NEGATIVE]
BelowOne = Annotated[float, Bounds("a number in [0, 1)", lambda value: 0 <= value < 1)]
UpToOne = Annotated[float, Bounds("a number in (0, 1]", lambda value: 0 < value <= 1)]
FiniteFloat = Annotated[float, Bounds("a finite number", math.isfinite)]
ZeroToOne = Annotated[float, Bounds("a number in [0, 1]", lambda value: 0 <= value <= 1)]
Seed = Annotated[int, Bounds("a number in [0, 2^63)", lambda value: 0 <= value < 2**63)]
