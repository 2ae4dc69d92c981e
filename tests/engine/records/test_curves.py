import torch
from torch import nn

from engine.records.curves import LINE_COLORS, draw_curves, function_vertices, render, spread
from pwlu import PWLU, pwlu_reference


def learned(num_parameters: int) -> PWLU:
    """Return a PWLU with functions that differ from each other and from ReLU."""
    torch.manual_seed(0)
    layer = PWLU(num_parameters, num_intervals=5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def test_the_corners_lie_on_the_function() -> None:
    layer = learned(3)
    for index in range(3):
        x, y = function_vertices(layer, index)
        inputs = torch.zeros(len(x), 3)
        inputs[:, index] = x
        outputs = pwlu_reference(
            inputs, layer.left, layer.right, layer.points, layer.left_slope, layer.right_slope
        )
        torch.testing.assert_close(y, outputs[:, index].detach(), rtol=1e-4, atol=1e-5)
        assert len(x) == 8  # 6 demarcation points and an end of each tail
        assert x[0] < layer.left[index] and x[-1] > layer.right[index]


def test_figure_shows_layers_functions_and_boundaries() -> None:
    model = nn.Sequential(*[learned(channels) for channels in (1, 8, 3, 4, 5, 6, 7, 8, 9, 10)])
    figure = draw_curves(model, "after 3 epochs")
    assert figure is not None and "after 3 epochs" in figure.get_suptitle()
    panels = figure.get_axes()
    assert len(panels) == 8
    assert panels[0].get_title() == "0  (1 function)" and panels[-1].get_title() == "9  (10 functions)"
    circles = [line for line in panels[-1].get_lines() if line.get_marker() == "o"]
    assert len(circles) == 5
    layer = model[9]
    for circle, index in zip(circles, spread(10, 5), strict=True):
        expected = [layer.left[index].item(), layer.right[index].item()]
        torch.testing.assert_close(torch.tensor(circle.get_xdata()), torch.tensor(expected))
    assert [circle.get_color() for circle in circles] == list(LINE_COLORS[:5])
    picture = render(figure)
    assert picture.dtype == "uint8" and picture.shape[2] == 3 and len(set(picture[..., 0].flat)) > 10
    assert draw_curves(nn.Linear(1, 1), "title") is None
