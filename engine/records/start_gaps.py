"""Where a PWLU, as it begins to learn, is not quite the function that it starts as."""

from collections.abc import Mapping

from engine.records.console import first_few
from pwlu import PWLU

LARGE_GAP = 0.1  # in standard deviations of the input


def start_gap_line(layers: Mapping[str, PWLU]) -> str | None:
    """Return a sentence on the layers whose points are far from their starting function, None without any.

    A layer's gap is that of its worst function (`PWLU.start_gap`).
    """
    gaps = {name: layer.start_gap().max().item() for name, layer in layers.items()}
    large = sorted((name for name in gaps if gaps[name] > LARGE_GAP), key=lambda name: -gaps[name])
    if not large:
        return None
    worst = first_few([f"{name} ({layers[name].starting.name}) {gaps[name]:.2f}" for name in large])
    return (
        f"{len(large)} of {len(gaps)} PWLUs begin more than {LARGE_GAP:g} standard deviations of their input "
        f"from the function that they start as: {worst}; more intervals (activation.num_intervals) bring "
        "them nearer"
    )
