"""Phase I and input that is not finite: such a step has no part in Eq. 5, and is reported once."""

import math
import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.training import assert_statistics, batches, feed, mean_and_std


def spoilt(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[0, 1] = value
    return x


def told(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    return [str(message.message) for message in caught]


class Network(nn.Module):
    """Two sites, the second of which gets what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = PWLU(2), PWLU(2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> None:
        for site, x in zip((self.first, self.second), inputs, strict=True):
            site(x)


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan, 1e30, -3e38], ids=str)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_step_that_is_not_finite_has_no_part(value: float, at: int) -> None:
    """In no function of the site; another site takes it. 1e30 is finite, its square in float32 is not."""
    clean = batches(3, 9, 2)
    model = Network()
    phases = TwoPhaseLearning(model, 10)
    with pytest.warns(UserWarning) as caught:
        for step, x in enumerate(clean):
            model((x, spoilt(x, value) if step == at else x))
            phases.before_optimizer_step()
            phases.after_optimizer_step()
            assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    (message,) = told(caught)
    assert "'second'" in message and "'first'" not in message and "not finite" in message
    for site, inputs in ((model.first, clean), (model.second, [x for x in clean if x is not clean[at]])):
        expected = PWLU(2)
        feed(expected, TwoPhaseLearning(expected, 10), *([x] for x in inputs))
        assert_statistics(site, expected.running_mean, expected.running_std)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_all_calls_of_such_a_step_are_left_out(position: int) -> None:
    """However the batch was cut, the result is that of the whole batch."""
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 4)
    clean, *parts = batches(4, 9, 2)
    parts[position] = spoilt(parts[position], -math.inf)
    with pytest.warns(UserWarning, match="PWLU"):
        feed(module, phases, [clean], parts)
    assert_statistics(module, *mean_and_std(clean, (0,)))


def test_half_precision() -> None:
    """A step that float16 holds is taken, also where its sum and its squares would overflow float16."""
    module = PWLU(2)
    x = 6e4 * torch.linspace(0.5, 1, 64).view(32, 2).half()
    phases = TwoPhaseLearning(module, 4)
    with warnings.catch_warnings(action="error"):
        feed(module, phases, [x])
    mean, std = mean_and_std(x, (0,))
    torch.testing.assert_close(module.running_mean, mean)
    torch.testing.assert_close(module.running_std, std)
    with pytest.warns(UserWarning, match="not finite"):
        feed(module, phases, [2 * x], [x])
    torch.testing.assert_close(module.running_mean, mean)


def test_a_site_is_named_once() -> None:
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 8)
    x = batches(1, 9, 2)[0]
    with pytest.warns(UserWarning) as caught:
        feed(module, phases, *([spoilt(x, math.nan)] for _ in range(3)), [x], [spoilt(x, math.inf)])
        phases.state_dict()
        feed(module, phases, [x], [x], [x])
    assert len(told(caught)) == 1 and phases.phase == 2
    assert_statistics(module, *mean_and_std(x, (0,)))


def test_a_look_that_waits_for_a_device_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """After steps 1, 2, 4, 8, and where a checkpoint waits anyway."""
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 20)
    x = batches(1, 9, 2)[0]
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    with warnings.catch_warnings(action="error"):
        feed(module, phases, [x], [x], [spoilt(x, math.nan)])
    with pytest.warns(UserWarning, match="not finite"):
        feed(module, phases, [x])
    again = TwoPhaseLearning(nn.Sequential(PWLU(2)), 20)
    with warnings.catch_warnings(action="error"):
        for value in (0.0, 0.0, math.inf):
            next(iter(again._sites.values()))(spoilt(x, value))
            again.after_optimizer_step()
    with pytest.warns(UserWarning, match="not finite"):
        assert again.state_dict()["step_count"] == 3


def test_a_site_without_a_finite_step_keeps_its_boundaries() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(PWLU(2, bound=2.0)))
    phases = TwoPhaseLearning(model, 2)
    with pytest.warns(UserWarning) as caught:
        for x in batches(2, 4, 2):
            model(spoilt(x, math.nan))
            realigned = phases.after_optimizer_step()
    assert realigned
    assert "'1.0'" in told(caught)[-1] and "no step of phase I had finite input" in told(caught)[-1]
    assert model[1][0].left.tolist() == [-2.0, -2.0] and model[1][0].right.tolist() == [2.0, 2.0]
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("last_step", [False, True])
@pytest.mark.parametrize("name", ["running_mean", "running_std"])
def test_a_checkpoint_with_such_statistics_recovers(name: str, last_step: bool) -> None:
    """Versions before this one wrote them; the spoilt function starts anew, the other goes on."""
    model = nn.Sequential(PWLU(2))
    phases = TwoPhaseLearning(model, 4)
    x, y, z = batches(3, 9, 2)
    feed(model, phases, [x])
    weights = model.state_dict()
    weights[f"0.{name}"] = weights[f"0.{name}"].clone()
    weights[f"0.{name}"][1] = math.nan
    resumed = nn.Sequential(PWLU(2))
    again = TwoPhaseLearning(resumed, 4)
    again.load_state_dict({"step_count": 3 if last_step else 1, "phase1_steps": 4})
    resumed.load_state_dict(weights)
    with pytest.warns(UserWarning, match="'0'.*checkpoint.*start anew"):
        feed(resumed, again, [y])
    uninterrupted, fresh = PWLU(2), PWLU(2)
    feed(uninterrupted, TwoPhaseLearning(uninterrupted, 4), [x], [y])
    feed(fresh, TwoPhaseLearning(fresh, 4), [y])
    for tensor in ("running_mean", "running_std"):
        expected = torch.stack([getattr(uninterrupted, tensor)[0], getattr(fresh, tensor)[1]])
        torch.testing.assert_close(getattr(resumed[0], tensor), expected)
    assert again.phase == (2 if last_step else 1)
    with warnings.catch_warnings(action="error"):
        feed(resumed, again, [z])
