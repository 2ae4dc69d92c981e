"""A picture on which objects are drawn one over another, and what of each can still be seen."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Color = npt.NDArray[np.int64]  # (3,) red, green, blue, 0 .. 255

_SOLID = 128  # from this much ink on, of 255, a pixel belongs to the object
_MAX_HIDDEN = 0.25  # of an object's pixels


@dataclass
class DrawnObject:
    """An object or a crowd of a class; `area`: its pixels before later objects covered some."""

    label: int
    is_crowd: bool = False
    area: int = 0


class Canvas:
    """A picture and the objects drawn on it, in the order of drawing.

    Attributes:
        pixels: uint8 (height, width, 3), RGB.
        objects: what is drawn on it.
    """

    def __init__(self, ground: Pixels) -> None:
        self.pixels = ground.copy()
        self.objects: list[DrawnObject] = []
        self._owner = np.full(ground.shape[:2], -1)  # which object each pixel shows

    def visible(self, number: int) -> Mask:
        return self._owner == number

    def hides_too_much(self, ink: Pixels, x: int, y: int) -> bool:
        left = self._owner.copy()
        _window(left, ink, x, y)[ink >= _SOLID] = -1
        return any(
            (left == number).sum() < (1 - _MAX_HIDDEN) * drawn.area
            for number, drawn in enumerate(self.objects)
        )

    def draw(self, drawn: DrawnObject, stamps: list[tuple[Pixels, int, int]], color: Color) -> None:
        number = len(self.objects)
        self.objects.append(drawn)
        for ink, x, y in stamps:
            under = _window(self.pixels, ink, x, y)
            opacity = ink[..., None].astype(np.int64)
            # Integers: no machine rounds them differently.
            under[:] = (under * (255 - opacity) + color * opacity + 127) // 255
            _window(self._owner, ink, x, y)[ink >= _SOLID] = number
        drawn.area = int(self.visible(number).sum())


def _window(plane: np.ndarray, ink: Pixels, x: int, y: int) -> np.ndarray:
    return plane[y : y + ink.shape[0], x : x + ink.shape[1]]
