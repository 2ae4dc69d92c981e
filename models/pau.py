"""The Pade Activation Unit (PAU): Molina, Schramowski, Kersting, arXiv 1907.06732 (ICLR 2020)."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUMERATOR_DEGREE = 5
DENOMINATOR_DEGREE = 4
FIT_BOUND = 3.0  # the start is fitted on [-3, 3], where a batch-normalised input is
FIT_POINTS = 2001
FIT_ROUNDS = 20
NEGATIVE_SLOPE = 0.01


class PAU(nn.Module):
    """y = (a_0 + a_1 x + ... + a_5 x^5) / (1 + |b_1 x + ... + b_4 x^4|), learnt for a whole layer.

    The "safe" form of the original, whose denominator has no zeros, with m = 5, n = 4 (the PWLU paper's
    section 4.1) and one function per layer. It starts from LeakyReLU(0.01), by a fit of its own on [-3, 3].

    Shape:
        input any, output the same; the output has the input's dtype, the arithmetic the parameters'.

    Attributes:
        numerator: a_0 ... a_5, shape (6,).
        denominator: b_1 ... b_4, shape (4,).
    """

    def __init__(self) -> None:
        super().__init__()
        numerator, denominator = fit_leaky_relu()
        self.numerator = nn.Parameter(torch.tensor(numerator, dtype=torch.get_default_dtype()))
        self.denominator = nn.Parameter(torch.tensor(denominator, dtype=torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        return _PAUFunction.apply(x, self.numerator, self.denominator)


@lru_cache
def fit_leaky_relu() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a_0 ... a_5 and b_1 ... b_4 that bring the quotient P / Q to LeakyReLU(0.01) on [-3, 3]."""
    # P - f * Q is linear in the coefficients, so each round is a linear least-squares problem; dividing its
    # rows by the last round's Q turns it into that of P / Q - f (Sanathanan and Koerner, 1963). The absolute
    # value is left out: the fitted b_1 x + ... + b_4 x^4 is nowhere negative.
    m, n = NUMERATOR_DEGREE, DENOMINATOR_DEGREE
    x = torch.linspace(-FIT_BOUND, FIT_BOUND, FIT_POINTS, dtype=torch.float64, device="cpu")
    target = F.leaky_relu(x, NEGATIVE_SLOPE)
    powers = x[:, None] ** torch.arange(max(m, n) + 1, device="cpu")
    rows = torch.cat([powers[:, : m + 1], -target[:, None] * powers[:, 1 : n + 1]], dim=1)
    weight = torch.ones_like(x)
    for _ in range(FIT_ROUNDS):
        fit = torch.linalg.lstsq(rows * weight[:, None], (target * weight)[:, None], driver="gelsd")
        numerator, denominator = fit.solution[:, 0].split((m + 1, n))
        weight = 1 / (1 + (powers[:, 1 : n + 1] @ denominator).abs())
    return tuple(numerator.tolist()), tuple(denominator.tolist())


class _PAUFunction(torch.autograd.Function):
    """The formula with a backward that keeps x alone; plain autograd would keep ten tensors of its size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
        ctx.save_for_backward(x, numerator, denominator)
        value = x.to(torch.promote_types(x.dtype, numerator.dtype))
        top = _polynomial(value, numerator)
        bottom = 1 + (value * _polynomial(value, denominator)).abs()
        return (top / bottom).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, numerator, denominator = ctx.saved_tensors
        value, grad = (t.to(torch.promote_types(x.dtype, numerator.dtype)) for t in (x, grad))
        inner = value * _polynomial(value, denominator)  # A(x), where Q = 1 + |A|
        bottom = 1 + inner.abs()
        to_top = grad / bottom  # gradient of P
        to_inner = -to_top * _polynomial(value, numerator) / bottom * inner.sign()  # gradient of A
        grad_x = to_top * _polynomial(value, _derivative(numerator, 0))
        grad_x = grad_x + to_inner * _polynomial(value, _derivative(denominator, 1))
        grad_numerator = _moments(to_top, value, len(numerator))
        grad_denominator = _moments(to_inner * value, value, len(denominator))
        return grad_x.to(x.dtype), grad_numerator, grad_denominator


def _polynomial(x: Tensor, coefficients: Tensor) -> Tensor:
    value = coefficients[-1].expand_as(x)
    for coefficient in coefficients[:-1].flip(0):
        value = torch.addcmul(coefficient, value, x)
    return value


def _derivative(coefficients: Tensor, first_power: int) -> Tensor:
    powers = torch.arange(len(coefficients), device=coefficients.device) + first_power
    return (coefficients * powers)[1 - first_power :]


def _moments(weight: Tensor, x: Tensor, count: int) -> Tensor:
    """Return the sums of weight * x^0, weight * x^1, ... `count` of them."""
    sums = [weight.sum()]
    for _ in range(count - 1):
        weight = weight * x
        sums.append(weight.sum())
    return torch.stack(sums)
