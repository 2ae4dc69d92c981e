import pytest
import torch
from torch import nn

from engine.training.ema import Ema


def model_with(value: float) -> nn.Module:
    model = nn.BatchNorm1d(1)
    nn.init.constant_(model.weight, value)
    return model


def test_average_by_hand() -> None:
    model = model_with(0.0)
    ema = Ema(model, decay=0.2)
    nn.init.constant_(model.weight, 1.0)
    ema.update()  # decay (1 + 0) / (10 + 0) = 0.1: 0.1 * 0 + 0.9 * 1
    assert ema.state_dict()["weights"]["weight"].item() == pytest.approx(0.9)
    nn.init.constant_(model.weight, 2.0)
    ema.update()  # (1 + 1) / (10 + 1) = 0.1818: 0.1818 * 0.9 + 0.8182 * 2
    assert ema.state_dict()["weights"]["weight"].item() == pytest.approx(0.9 * 2 / 11 + 2 * 9 / 11)
    ema.update()  # (1 + 2) / (10 + 2) = 0.25 is above the decay of 0.2
    assert ema.state_dict()["weights"]["weight"].item() == pytest.approx(0.2 * 1.8 + 0.8 * 2)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(1)
    ema = Ema(model, decay=0.9)
    model(torch.tensor([[1.0], [3.0]]))  # running mean 0.1 * 2
    ema.update()
    weights = ema.state_dict()["weights"]
    assert weights["running_mean"].item() == pytest.approx(0.9 * 0.2)
    assert weights["num_batches_tracked"].item() == 1


def test_model_holds_the_average_inside_the_block_only() -> None:
    model = model_with(0.0)
    ema = Ema(model, decay=0.9)
    nn.init.constant_(model.weight, 1.0)
    ema.update()
    with pytest.raises(KeyError), ema.in_model():
        assert model.weight.item() == pytest.approx(0.9)
        raise KeyError  # also after an error
    assert model.weight.item() == 1.0
    assert ema.state_dict()["weights"]["weight"].item() == pytest.approx(0.9)
