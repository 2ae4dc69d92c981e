"""The operator: PWLU(BatchNorm(x)) or PWLU(BatchNorm(x) + shortcut), with its gradients."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..arguments import broadcast_shape
from ..library import accept_any_layout
from ..moments import all_but_channels
from ..processes import all_reduce
from ..reference import pwlu_reference

FORWARD, BACKWARD = torch.ops.pwlu.normalized.default, torch.ops.pwlu.normalized_backward.default
GRADIENT = torch.ops.pwlu.batch_norm_grad.default
accept_any_layout(FORWARD, BACKWARD)


class Source(NamedTuple):
    """What the mean and the standard deviation of a BatchNorm are of.

    Attributes:
        is_batch: of x; they are constants otherwise.
        group: the processes whose x they are of; None for this one alone.
        elements: how many there are of each channel over the group: shape (), float64; None without a group.
    """

    eps: float
    is_batch: bool
    group: dist.ProcessGroup | None = None
    elements: Tensor | None = None


class Norm(NamedTuple):
    """A BatchNorm at work: (x - mean) * invstd * weight + bias, each of shape (C,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    invstd: Tensor
    source: Source


def normalized(terms: Sequence[Tensor], norms: Sequence[Norm], parameters: Sequence[Tensor]) -> Tensor:
    """Apply PWLUs to a normalised tensor, or to its sum with a shortcut, which may be normalised too.

    Only the terms and numbers per channel are kept for the backward pass, which has two passes: over grad and
    the terms, and over what the first has made and each normalised term. Two runs give the same bits.

    Args:
        terms: x and, where there is one, the shortcut, of shape (N, C, *), like each other.
        norms: of the first terms.
        parameters: as `pwlu.pwlu` takes them, for C functions or, on a CPU, one.

    Returns:
        y like x. Between the two nothing is rounded to the dtype of x.
    """
    sources = tuple(norm.source for norm in norms)
    numbers = chain.from_iterable(norm[:4] for norm in norms)
    return _Normalized.apply(sources, len(terms), *terms, *parameters, *numbers)


def normalized_reference(
    terms: Sequence[Tensor], norms: Sequence[Norm], parameters: Sequence[Tensor]
) -> Tensor:
    """Compute `normalized` with plain tensor operations; those of a batch depend on their term."""
    values = (_reference_term(term.to(parameters[0].dtype), norm) for term, norm in zip_longest(terms, norms))
    return pwlu_reference(sum(values, start=torch.zeros(())), *parameters).to(terms[0].dtype)


def batch_norm(x: Tensor, norm: Norm) -> Tensor:
    """Normalise x, (N, C, *), alone, with the gradients of all processes' statistics."""
    return _BatchNorm.apply(x, *norm)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *numbers_and_source: Any) -> Tensor:
        norm = Norm(*numbers_and_source)
        ctx.save_for_backward(x, *norm[:4])
        ctx.source = norm.source
        distance = x.to(norm.mean.dtype) - _per_channel(norm.mean, x)
        y = distance * _per_channel(norm.weight * norm.invstd, x) + _per_channel(norm.bias, x)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, invstd = ctx.saved_tensors
        norm = Norm(weight, bias, mean, invstd, ctx.source)
        wide, dims = grad.to(norm.mean.dtype), all_but_channels(x)
        sum_grad = wide.sum(dims)
        moment = (wide * (x - _per_channel(norm.mean, x))).sum(dims)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _through_norm(grad, x, norm, sum_grad, moment, torch.empty_like(x))
        return (of_x, moment * norm.invstd, sum_grad, None, None, None)


def _per_channel(numbers: Tensor, x: Tensor) -> Tensor:
    return numbers.reshape(broadcast_shape(x, len(numbers), 1))


def _reference_term(x: Tensor, norm: Norm | None) -> Tensor:
    if norm is None:
        return x
    mean, invstd = norm.mean, norm.invstd
    if norm.source.is_batch:
        if norm.source.group is not None:
            raise NotImplementedError(
                "pwlu: a fused BatchNorm over several processes has no second derivative, as "
                "nn.SyncBatchNorm has none. Use one process, or BatchNorms of each process's own data."
            )
        variance, mean = torch.var_mean(x, all_but_channels(x), correction=0)
        invstd = (variance + norm.source.eps).rsqrt()
    distance = x - _per_channel(mean, x)
    return distance * _per_channel(invstd * norm.weight, x) + _per_channel(norm.bias, x)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sources: tuple[Source, ...], num_terms: int, *tensors: Tensor) -> Tensor:
        ctx.sources, ctx.num_terms = sources, num_terms
        ctx.save_for_backward(*tensors)
        terms, parameters, norms = _grouped(sources, num_terms, tensors)
        return FORWARD(terms, _numbers(norms), parameters)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = (ctx.sources, ctx.num_terms, ctx.saved_tensors)
        # torch.compile looks at this with autograd switched on, and never wants second derivatives.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return (None, None, *_reference_backward(grad, *saved))
        terms, parameters, norms = _grouped(*saved)
        grad_z, sums, *of_parameters = BACKWARD(grad, terms, _numbers(norms), parameters)
        of_terms: list[Tensor | None] = []
        of_norms: list[Tensor | None] = []
        for index, (term, norm) in enumerate(zip_longest(terms, norms)):
            is_last = index + 1 == len(terms)
            if norm is None:
                of_terms.append(grad_z)
                continue
            sum_grad, moment = sums[0], sums[1 + index]
            # Two biases must not share one gradient.
            of_norms += [moment * norm.invstd, sum_grad.clone() if index else sum_grad, None, None]
            if not ctx.needs_input_grad[2 + index]:
                of_terms.append(None)
                continue
            to = grad_z if is_last else torch.empty_like(grad_z)
            of_terms.append(_through_norm(grad_z, term, norm, sum_grad, moment, to))
        return (None, None, *of_terms, *of_parameters, *of_norms)


def _grouped(
    sources: tuple[Source, ...], num_terms: int, tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Norm]]:
    """Return terms, parameters and norms of the flat arguments of `_Normalized`."""
    rest = num_terms + 5
    norms = []
    for index, source in enumerate(sources):
        weight, bias, mean, invstd = tensors[rest + 4 * index : rest + 4 * (index + 1)]
        norms.append(Norm(weight, bias, mean, invstd, source))
    return list(tensors[:num_terms]), list(tensors[num_terms:rest]), norms


def _numbers(norms: Sequence[Norm]) -> list[Tensor]:
    return [number for norm in norms for number in (norm.mean, norm.invstd, norm.weight, norm.bias)]


def _through_norm(
    grad_z: Tensor, x: Tensor, norm: Norm, sum_grad: Tensor, moment: Tensor, to: Tensor
) -> Tensor:
    """Return d loss / d x, in `to` where that saves memory; `to` may be `grad_z`.

    sum_grad and moment, shape (C,): this process's sums of grad_z and of grad_z * (x - mean).
    """
    if x.numel() > 0 and to.stride() != x.stride():
        to = torch.empty_like(x)  # terms may have different memory orders
    if not norm.source.is_batch:
        return torch.mul(grad_z, _per_channel(norm.weight * norm.invstd, x), out=to)
    elements: Any = x.numel() // x.shape[1]
    if norm.source.group is not None:
        sum_grad, moment = all_reduce(torch.stack([sum_grad, moment]), group=norm.source.group)
        elements = norm.source.elements
    if x.numel() == 0:
        return to
    if torch.compiler.is_compiling():  # which makes one kernel of it
        scale, mean_grad = norm.weight * norm.invstd, sum_grad / elements
        of_x = -(norm.invstd**2) * moment / elements
        scale, mean_grad, of_x, mean = (_per_channel(n, x) for n in (scale, mean_grad, of_x, norm.mean))
        return (scale * (grad_z - mean_grad + of_x * (x - mean))).to(grad_z.dtype)
    if x.is_cuda:
        if isinstance(elements, Tensor):
            count = elements.to(torch.int32).reshape(1)
        else:
            count = torch.full((1,), elements, dtype=torch.int32, device=x.device)
        return torch.batch_norm_backward_elemt(
            grad_z, x, norm.mean, norm.invstd, norm.weight, sum_grad, moment, count
        )
    GRADIENT(grad_z, x, norm.mean, norm.invstd, norm.weight, sum_grad, moment, float(elements), to)
    return to


def _reference_backward(
    grad: Tensor, sources: tuple[Source, ...], num_terms: int, tensors: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of all tensors, as a differentiable function of them: slow and exact."""
    with torch.enable_grad():
        # Aliases to differentiate with respect to: what led to a tensor itself stays out.
        inputs = [t.view_as(t) for t in tensors]
        terms, parameters, norms = _grouped(sources, num_terms, inputs)
        y = normalized_reference(terms, norms, parameters)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if t.requires_grad else None for t in inputs)


@torch.library.register_fake("pwlu::normalized")
def _forward_fake(terms: list[Tensor], norms: list[Tensor], parameters: list[Tensor]) -> Tensor:
    return torch.empty_like(terms[0])


@torch.library.register_fake("pwlu::normalized_backward")
def _backward_fake(
    grad: Tensor, terms: list[Tensor], norms: list[Tensor], parameters: list[Tensor]
) -> tuple[Tensor, ...]:
    sums = parameters[0].new_empty((3, terms[0].shape[1]))
    of_parameters = (torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters)
    return (torch.empty_like(terms[0]), sums, *of_parameters)


@register_flop_formula(torch.ops.pwlu.normalized)
def _forward_flops(terms_shape: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> int:
    # Per element and term a multiply-add, then pwlu::forward.
    return (5 + 2 * len(terms_shape)) * torch.Size(terms_shape[0]).numel()


@register_flop_formula(torch.ops.pwlu.normalized_backward)
def _backward_flops(
    grad_shape: Sequence[int], terms_shape: Sequence[Sequence[int]], *args: Any, **kwargs: Any
) -> int:
    # Per element and term the same again and its moment (subtract, multiply, add), then pwlu::backward.
    return (8 + 5 * len(terms_shape)) * torch.Size(grad_shape).numel()
