import numpy as np
import pytest
import torch

from tools.functions.statistics import Histogram, Moments, Quantiles

NORMAL = torch.randn(3, 5003, generator=torch.Generator().manual_seed(0))
DISTRIBUTIONS = {
    "normal": NORMAL,
    "constant": torch.full((3, 5003), -1.7),
    "two values": (NORMAL > 1).float() * 2 - 1,
    "heavy tails": NORMAL**5,
    "offset": NORMAL + 100,
    "tiny": NORMAL * 1e-40,  # below the smallest normal number
    "mostly zero": NORMAL.clamp(min=0.5) - 0.5,
    "half precision": NORMAL.half(),
    "one value": NORMAL[:, :1],
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_of_a_stream_are_as_near_as_promised(name: str) -> None:
    values, quantiles = DISTRIBUTIONS[name], Quantiles(3)
    for batch in values.split(700, dim=1):
        quantiles.add(batch)
    assert quantiles.count == values.shape[1]
    for fraction in (0.0, 0.05, 0.5, 0.95, 1.0):
        expected = torch.quantile(values.float(), fraction, dim=1, interpolation="nearest")
        torch.testing.assert_close(quantiles.at(fraction), expected, rtol=2**-7, atol=2**-16)
    if name == "constant":
        assert torch.equal(quantiles.at(0.05), quantiles.at(0.95))


def test_values_out_of_range_keep_their_order() -> None:
    quantiles = Quantiles(1)
    quantiles.add(torch.tensor([[-1e30, -1.0, 1.0, 1e30]]))
    found = [quantiles.at(fraction).item() for fraction in (0.0, 1 / 3, 2 / 3, 1.0)]
    assert found == sorted(found) and found[1:3] == pytest.approx([-1, 1], rel=2**-7)


def test_what_a_line_explains_is_the_squared_correlation() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1000, generator=generator) + 2
    y = torch.stack([x[0] * -2 + 1, x[1].abs() ** 2, torch.full((1000,), 0.1)])
    fit = Moments()
    for part in range(4):
        fit.add(x[:, part::4], y[:, part::4])
    expected = [1.0, np.corrcoef(x[1], y[1])[0, 1] ** 2, 1.0]
    assert fit.explained().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0.1, -3.3, 1e6 / 7])
def test_what_does_not_vary_has_no_variance_at_all(constant: float) -> None:
    x, y = torch.randn(2, 5, 999, generator=torch.Generator().manual_seed(1))
    for pair in ((torch.full_like(x, constant), y), (x, torch.full_like(x, constant))):
        fit = Moments()
        for part in range(7):
            fit.add(*(values[:, part::7] for values in pair))
        assert 0 in [variance.max() for variance in fit.covariances()[:2]]
        assert fit.explained().tolist() == [1.0] * 5


def test_a_large_mean_does_not_hide_the_variance() -> None:
    x = torch.randn(1, 10_000, generator=torch.Generator().manual_seed(2)).double()
    fit = Moments()
    fit.add(x + 1e8, x)
    assert fit.covariances()[0].item() == pytest.approx(x.var(correction=0).item(), rel=1e-6)


def test_relu_of_normal_inputs() -> None:
    x = torch.randn(1, 1_000_000, generator=torch.Generator().manual_seed(0))
    fit = Moments()
    fit.add(x, x.clamp(min=0))
    # covariance 1/2, variance of ReLU(x) 1/2 - 1/(2 pi)
    assert fit.explained().item() == pytest.approx(0.25 / (0.5 - 1 / (2 * torch.pi)), abs=2e-3)


def test_values_fall_into_bins() -> None:
    counted = Histogram.between(torch.zeros(2), torch.tensor([60.0, 30.0]), 60)  # bins of 1 and of 1/2
    counted.add(torch.tensor([[0.0, 0.5, 1.0, 59.9], [-0.1, -9e30, 60.0, float("inf")]]))
    counted.add(torch.tensor([[1.5], [1.5]]))
    assert counted.counts[0, [0, 1, 2, 60, 61]].tolist() == [0, 2, 2, 1, 0]
    assert counted.counts[1, [0, 4, 61]].tolist() == [2, 1, 2]
    assert counted.counts.sum(1).tolist() == [5, 5]
    assert counted.shares()[0, :2].tolist() == [0.4, 0.4] and counted.outside() == 0.4
