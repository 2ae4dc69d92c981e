"""Colours that people with any colour vision can tell apart: Okabe and Ito's set, without its black."""

# Orange, sky blue, bluish green, yellow, blue, vermillion, reddish purple: the bright ones first.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

# For lines on white: the darkest first, and without the yellow, which is too faint there.
LINE_COLORS = tuple(OKABE_ITO[number] for number in (4, 5, 2, 6, 1, 0))
