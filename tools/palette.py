"""Colours of the figures that a reader with any colour vision can tell apart: Okabe and Ito's set."""

from engine.coco.pictures import COLORS

# In another order: the darkest first, and last the yellow, which is faint on white.
OKABE_ITO = tuple(COLORS[number] for number in (4, 5, 2, 6, 1, 0, 3))
