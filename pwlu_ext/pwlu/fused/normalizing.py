"""A BatchNorm's output that is not computed yet: a PWLU that gets it computes both at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .operator import Norm, normalized

MOST_INTERVALS_ON_GPU = 60  # kMostNormalizedIntervals of csrc/cuda/kernels.h


class WaitingNorm(Protocol):
    """What a BatchNorm does once it is known who uses its output: one of the two."""

    def apart(self, x: Tensor) -> Tensor:
        """Return its output."""
        ...

    def begin(self, x: Tensor) -> Norm:
        """Return what to normalise by; running statistics move as in its forward."""
        ...


class Term:
    """x of shape (N, C, *), to be normalised if there is a norm."""

    def __init__(self, x: Tensor, norm: WaitingNorm | None) -> None:
        self.x, self.norm = x, norm
        self.has_graph = torch.is_grad_enabled()  # as it was where the BatchNorm was called
        self._version = _version(x)

    def value(self) -> Tensor:
        """Return what it stands for."""
        if self.norm is None:
            return self.x
        with torch.set_grad_enabled(self.has_graph):
            return self.norm.apart(self.x)

    def check(self) -> None:
        """Raise RuntimeError if x has changed since the term was made."""
        if _version(self.x) != self._version:
            raise RuntimeError(
                "pwlu: the input of a fused BatchNorm, or a shortcut that is added to its output, was "
                "changed in place before the PWLU behind it ran. Change a copy, or do not call "
                "fuse_batch_norm."
            )


class Normalizing:
    """The sum of one or two terms, the first one normalised.

    A PWLU takes it by `through`. Everything else finds its value: attributes, operators and torch's functions
    work as on the tensor that it stands for.
    """

    def __init__(self, *terms: Term) -> None:
        self._terms = terms
        self._value: Tensor | None = None
        self._was_taken = False

    def value(self) -> Tensor:
        """Return the tensor, which is computed at the first call.

        Raises:
            RuntimeError: a PWLU, or a sum, has taken it before; or the input has changed.
        """
        if self._value is None:
            first, *others = self._take()
            self._value = first.value()
            for other in others:
                self._value = self._value + other.value()
        return self._value

    def through(self, parameters: Sequence[Tensor], channel_dim: int) -> Tensor | None:
        """Return the functions with these parameters of it; None where they need its value."""
        x, points = self._terms[0].x, parameters[2]
        functions, columns = points.shape
        if self._value is not None or (functions > 1 and channel_dim % x.dim() != 1):
            return None
        for term in self._terms:
            if term.has_graph and not torch.is_grad_enabled():
                raise RuntimeError(
                    "pwlu: a PWLU ran without autograd on the output of a fused BatchNorm that ran with it, "
                    "as in a segment of torch.utils.checkpoint that begins with the PWLU: no gradient could "
                    "pass. Use use_reentrant=False, or do not call fuse_batch_norm."
                )
            if term.has_graph != torch.is_grad_enabled():
                return None
        if x.is_cuda:
            if columns - 1 > MOST_INTERVALS_ON_GPU:
                return None
            # The kernels have a function for each channel.
            parameters = [p.expand(x.shape[1], *p.shape[1:]) for p in parameters]
        terms = self._take()
        norms = [term.norm.begin(term.x) for term in terms if term.norm is not None]
        return normalized([term.x for term in terms], norms, parameters)

    def _take(self) -> tuple[Term, ...]:
        if self._was_taken and not is_recomputed():
            raise RuntimeError(
                "pwlu: the output of a fused BatchNorm was used again after a PWLU or a sum had taken it. "
                "Use it before (a hook: while it is called), or do not call fuse_batch_norm."
            )
        self._was_taken = True
        for term in self._terms:
            term.check()
        return self._terms

    def plus(self, other: Any) -> Any:
        """Return the sum, not computed yet where it can be a PWLU's input."""
        terms = self._terms_with(other)
        return self.value() + _valued(other) if terms is None else Normalizing(*terms)

    def _terms_with(self, other: Any) -> tuple[Term, ...] | None:
        """Take the terms of the sum with `other`; None where it has to be computed."""
        if other is self or not self._can_be_a_term():
            return None
        x = self._terms[0].x
        if isinstance(other, Normalizing) and other._can_be_a_term() and _are_alike(x, other._terms[0].x):
            return (*self._take(), *other._take())
        if isinstance(other, Tensor) and _are_alike(x, other):
            return (*self._take(), Term(other, None))
        return None

    def _can_be_a_term(self) -> bool:
        return self._value is None and len(self._terms) == 1

    def add_in_place(self, other: Any) -> Any:
        """Return `plus`, of the same dtype and shape; nothing else holds what it would have changed."""
        terms = self._terms_with(other)
        return self.value().add_(_valued(other)) if terms is None else Normalizing(*terms)

    __add__ = __radd__ = plus
    __iadd__ = add_in_place
    __hash__ = object.__hash__  # as of a tensor; __eq__ is element by element

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value(), name)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if len(args) == 2 and not kwargs:
            first, second = args
            # torch.compile brings operators here, too.
            if isinstance(first, Normalizing) and function is operator.iadd:
                return first.add_in_place(second)
            if isinstance(first, Normalizing) and function in _SUMS:
                return first.plus(second)
            if isinstance(second, Normalizing) and function in _SUMS:
                return second.plus(first)
        args, kwargs = tree_map(_valued, (args, dict(kwargs or {})))
        return function(*args, **kwargs)


_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, operator.add)


def _valued(value: Any) -> Any:
    return value.value() if isinstance(value, Normalizing) else value


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device


def is_recomputed() -> bool:
    """Return whether this runs within a backward pass, as a checkpointed segment does a second time."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _version(x: Tensor) -> int:
    return 0 if torch.compiler.is_compiling() or x.is_inference() else x._version


def _by_value(name: str) -> Callable[..., Any]:
    def method(self: Normalizing, *args: Any) -> Any:
        return getattr(self.value(), name)(*map(_valued, args))

    return method


_BINARY = ("sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow", "and", "or", "xor")
for _name in (  # Python looks these up in the class
    *(f"__{prefix}{operation}__" for operation in _BINARY for prefix in ("", "r", "i")),
    *(
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__neg__",
        "__pos__",
        "__abs__",
        "__invert__",
    ),
    *("__getitem__", "__setitem__", "__len__", "__iter__", "__bool__", "__float__", "__int__"),
):
    if hasattr(Tensor, _name):
        setattr(Normalizing, _name, _by_value(_name))
