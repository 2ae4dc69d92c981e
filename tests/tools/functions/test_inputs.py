"""How a trained classifier and its images are opened, and what of them a tool gets to see."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from pwlu import PWLU
from tools.functions import boundary_iou
from tools.functions.inputs import apply, open_network, rows_of
from tools.functions.trained import open_trained, pwlu_layers_of


def test_a_row_per_function() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert rows_of(x, PWLU(3)).tolist() == [[*x[0, c], *x[1, c]] for c in range(3)]
    assert rows_of(x, PWLU(4, channel_dim=-1))[1].tolist() == x[:, :, 1].flatten().tolist()
    assert rows_of(x, PWLU(1)).tolist() == [x.flatten().tolist()]
    for layer in (PWLU(3), PWLU(1)):
        assert rows_of(torch.zeros(0, 3, 7, 7), layer).shape == (layer.num_parameters, 0)  # no region


def test_functions_are_applied_to_rows_wherever_their_channels_lie() -> None:
    x = torch.randn(2, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    for layer in (PWLU(3, init="tanh"), PWLU(3, channel_dim=3, init="silu"), PWLU(1, channel_dim=3)):
        assert torch.equal(apply(layer, rows_of(x, layer)), rows_of(layer(x), layer))


def test_a_network_that_started_as_prelu_is_read(trained: Path) -> None:
    opened = open_trained(trained)
    slopes = {
        key.replace("points", "init_slope"): value.mean(1)
        for key, value in opened.weights.items()
        if key.endswith(".points")
    }
    opened.content["model"].update(slopes)
    for name, layer in pwlu_layers_of(opened).items():
        assert torch.equal(
            layer.start(-torch.ones(1, layer.num_parameters))[0], -slopes[f"{name}.init_slope"]
        )
        assert torch.equal(layer.points, opened.weights[f"{name}.points"])


@pytest.mark.parametrize(
    ("overrides", "by_pillow"), [([], True), (["data.decoder=simplejpeg"], False)], ids=str
)
def test_a_run_from_before_there_was_a_choice_sees_pillows_images(
    trained: Path, tmp_path: Path, overrides: list[str], by_pillow: bool
) -> None:
    copy = shutil.copytree(trained, tmp_path / "old")
    config = copy / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "decoder:" not in line))
    last = copy / "checkpoints" / "last.pt"
    content = torch.load(last)
    del content["experiment"]["data.decoder"]
    torch.save(content, last)
    network = open_network(open_trained(copy), overrides=overrides)
    assert isinstance(network.task.data.val.image(0), Image.Image) == by_pillow


def test_broken_images_are_left_out_and_counted(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(images, tmp_path / "images")
    pictures = sorted(path for path in (root / "val").rglob("*") if path.is_file())
    output = tmp_path / "iou.json"
    arguments = [str(trained), "--output", str(output), "--set", f"data.root={root}"]
    skipping = [*arguments, "--set", "data.broken_images=skip"]
    pictures[0].write_bytes(b"not a picture")
    boundary_iou.main(skipping)
    (entry,) = json.loads(output.read_text())["checkpoints"]
    assert (entry["inputs"]["images"], entry["inputs"]["broken_images_left_out"]) == (14, 1)
    for picture in pictures:
        picture.write_bytes(b"not a picture")
    for words, sentence in [(arguments, "cannot decode"), (skipping, "none of the 15 images can be decoded")]:
        with pytest.raises(SystemExit):
            boundary_iou.main(words)
        assert sentence in capsys.readouterr().err


def test_network_is_as_trained_but_not_compiled(trained: Path) -> None:
    opened = open_trained(trained)
    given = ["runtime.compile=true", "runtime.channels_last=true"]
    network = open_network(opened, split="val", images=2, overrides=given)
    network.watch(lambda name, rows: None, list(network.layers), "")
    assert network.model._compiled_call_impl is None and not network.model.training
    assert all(weight.is_contiguous() for weight in network.model.parameters())
    for name, value in network.model.state_dict().items():
        assert torch.equal(value, opened.content["model"][name])
