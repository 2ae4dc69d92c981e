"""The compiled operator of the inference form computes what its plain form does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pwlu import FoldedPWLU
from pwlu.inference.folded import folded, folded_reference
from pwlu_ext.tests.helpers import folded_tables, special_inputs

SHAPES = [
    ((2, 5, 7, 9), 1),
    ((3, 17, 5), 1),
    ((4, 6, 33), -1),
    ((40, 70, 3, 3), 1),
    ((6, 5), 1),
    ((0, 4, 2), 1),
]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
OPERATOR, IN_PLACE = torch.ops.pwlu.folded.default, torch.ops.pwlu.folded_.default


def layouts(x: Tensor) -> list[Tensor]:
    """The same numbers in several orders of memory, one of them with gaps."""
    gaps = torch.stack([x, x], -1)[..., 0]
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return [x, gaps, last]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("num_intervals", [1, 6, 7, 14, 15, 30, 31, 40])
def test_equals_the_plain_form(dtype: torch.dtype, num_intervals: int, device: str) -> None:
    for shape, channel_dim in SHAPES:
        for groups in {1, shape[channel_dim]}:
            arguments = [table.to(device) for table in folded_tables(groups, num_intervals, dtype)]
            for x in layouts(special_inputs(shape, dtype).to(device)):
                y = OPERATOR(x, *arguments, channel_dim)
                expected = folded_reference(x, *arguments, channel_dim=channel_dim)
                torch.testing.assert_close(
                    y, expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype], equal_nan=True
                )
                assert y.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_in_place(dtype: torch.dtype) -> None:
    for shape, channel_dim in SHAPES:
        tables = folded_tables(shape[channel_dim], 7, dtype)
        for x in layouts(special_inputs(shape, dtype)):
            y, strides = OPERATOR(x, *tables, channel_dim), x.stride()
            IN_PLACE(x, *tables, channel_dim)
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
            assert x.stride() == strides


def test_module_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In eager mode and under torch.compile; not where a gradient is needed or an exporter looks."""
    module, x = FoldedPWLU(*folded_tables(3, 4, torch.float32)), torch.randn(2, 3, 5)
    with FlopCounterMode(display=False) as counter:
        y = module(x)
    assert counter.get_total_flops() == 4 * x.numel()
    assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), y)
    leaf = x.clone().requires_grad_()
    module(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.any()
    program = torch.export.export(module, (x,))
    assert OPERATOR not in [node.target for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(x), y)
    assert [n.target for n in torch.fx.symbolic_trace(module).graph.nodes].count(folded) == 1


@pytest.mark.parametrize("operator", [OPERATOR, IN_PLACE], ids=str)
def test_opcheck(operator: torch._ops.OpOverload) -> None:
    x = torch.randn(2, 3, 5)
    for groups in (1, 3):
        torch.library.opcheck(operator, (x, *folded_tables(groups, 4, torch.float32), 1))


def plain_form(*arguments: Any) -> Tensor:
    return folded_reference(*arguments[:-1], channel_dim=arguments[-1])


@pytest.mark.parametrize("operator", [OPERATOR, plain_form])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(2, 3, 5, dtype=torch.int32)}, "`x` must be float64"),
        ({1: torch.zeros(4)}, r"`left` must have shape \(3,\)"),
        ({2: torch.zeros(3, dtype=torch.float64)}, r"`interval` must be (torch\.)?float32"),
        ({3: torch.zeros(3, 2)}, r"`slopes` must have shape \(G, num_intervals \+ 2\)"),
        ({4: torch.zeros(3, 7)}, r"`offsets` must have (the )?shape \(3, 6\)"),
        ({5: 2}, "has 5 channels in dimension 2, but the parameters are for 3"),
        ({5: 3}, "`channel_dim` is 3, but x has"),
    ],
)
def test_wrong_arguments(operator: Callable[..., Tensor], change: dict[int, object], message: str) -> None:
    arguments = [torch.zeros(2, 3, 5), *folded_tables(3, 4, torch.float32), 1]
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(ValueError, match=message):
        operator(*arguments)
