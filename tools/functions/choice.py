"""Which layers, functions and steps the pictures of learned PWLUs show."""

from collections.abc import Mapping, Sequence

from engine.records.curves import MAX_LAYERS, spread
from engine.records.functions_log import LoggedFunctions
from engine.records.learned_functions import LayerFunctions
from pwlu import PWLU
from pwlu.suggestion import did_you_mean

Functions = dict[str, list[int]]  # channels by layer
ALL_LAYERS = ["all"]
MOST_STEPS = 8  # more lines in a panel cannot be told apart


def choose_functions(
    layers: Mapping[str, PWLU], names: Sequence[str] | None, at_most: int | None
) -> Functions:
    """Return which functions of which layers to draw.

    Args:
        names: of the layers; ["all"], or None for eight spread over the network's depth.
        at_most: functions per layer, spread over its channels; None for all.

    Raises:
        ValueError: there is no layer of a name.
    """
    counts = {name: layers[name].num_parameters for name in choose_layers(list(layers), names)}
    return {name: spread(count, at_most or count) for name, count in counts.items()}


def choose_layers(known: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Return the layers to draw, of those `known`; `names` and errors as in `choose_functions`."""
    if names is None:
        names = [known[number] for number in spread(len(known), MAX_LAYERS)]
    elif names == ALL_LAYERS:
        names = known
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(f"--layers: no PWLU is called {name!r}; there are {', '.join(known)}{near}")
    return list(names)


def choose_logged(
    layers: Mapping[str, LayerFunctions], names: Sequence[str] | None, at_most: int | None
) -> Functions:
    """Return which functions to draw of those that a log holds; arguments as in `choose_functions`.

    Raises:
        ValueError: there is no layer of a name, or the log holds too few functions of a layer.
    """
    functions = {}
    for name in choose_layers(list(layers), names):
        channels, total = list(layers[name].functions), layers[name].total
        wanted = min(at_most or total, total)
        if wanted > len(channels):
            raise ValueError(
                f"--evolution: {wanted} functions of {name!r} were asked for, but the run logged "
                f"{len(channels)} of its {total}; expected --functions {len(channels)} or less"
            )
        functions[name] = [channels[number] for number in spread(len(channels), wanted)]
    return functions


def choose_steps(logged: Sequence[LoggedFunctions], realigned: int) -> list[LoggedFunctions]:
    """Return up to eight, evenly spread, the one after step `realigned` among them if it was logged."""
    chosen = spread(len(logged), MOST_STEPS)
    for number, entry in enumerate(logged):
        if entry.step == realigned and number not in chosen:
            nearest = min(chosen[1:-1], key=lambda other: abs(other - number))
            chosen[chosen.index(nearest)] = number
    return [logged[number] for number in chosen]
