import pytest
import torch

from engine.records.start_gaps import start_gap_line
from pwlu import PWLU


def realigned(init: str, num_intervals: int, *shifts: float) -> PWLU:
    """Return a PWLU after Eq. 6 on inputs of these means and standard deviation 1."""
    layer = PWLU(len(shifts), num_intervals, init=init)
    mean = torch.tensor(shifts)
    layer.reset_to_start(mean - 3, mean + 3)
    return layer


def test_layers_far_from_their_start_are_named_the_worst_first() -> None:
    # The kink of ReLU lies in the middle of an interval of 6 / 3: the line is half of 1 above it.
    layers = {"exact": realigned("relu", 6, 0.0), "one": realigned("relu", 3, 0.0)}
    layers |= {"two": realigned("relu", 6, 0.0, 0.5), "fine": realigned("relu", 16, 0.1875)}
    line = start_gap_line(layers)
    assert line is not None and line.startswith("2 of 4 PWLUs begin more than 0.1 ")
    assert "one (relu) 0.50, two (relu) 0.25; more intervals" in line


def test_small_gaps_are_no_matter() -> None:
    """0.094 is the most that the paper's N leaves of ReLU."""
    layers = {f"{shift}": realigned("relu", 16, shift) for shift in (0.0, 0.1, 0.1875, 0.3)}
    assert max(layer.start_gap().item() for layer in layers.values()) == pytest.approx(6 / 16 / 4, abs=1e-3)
    assert start_gap_line(layers) is None and start_gap_line({}) is None


def test_only_the_first_few_are_named() -> None:
    line = start_gap_line({f"layer{number}": realigned("relu", 3, 0.0) for number in range(5)})
    assert line is not None and line.startswith("5 of 5") and "layer2" in line and "layer3" not in line
