"""Train a small network, fold it, and compare outputs and times in torch, onnxruntime and OpenVINO.

pip install onnx onnxscript onnxruntime openvino
python examples/deploy.py            # crops of scikit-learn's two photographs
python examples/deploy.py FOLDER     # an ImageFolder with train/ and val/
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import pwlu

SIZE, EPOCHS, BATCH_SIZE, CALLS = 64, 4, 32, 20

TO_NUMBERS = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])]
# How `pwlu.fold` makes what is fast in each runtime; `max_error` leaves out bends that matter little.
FOLDS: list[tuple[str, dict[str, Any]]] = [
    ("eager", {"form": "table"}),
    ("onnxruntime", {"form": "table"}),
    ("onnxruntime", {"form": "convolutions"}),
    ("openvino", {"form": "hinges"}),
    ("openvino", {"form": "hinges", "max_error": 0.01}),
]

Data = tuple[Tensor, Tensor]  # images (N, 3, SIZE, SIZE), labels (N,)
Run = Callable[[Tensor], np.ndarray]


def crops(number: int, columns: slice) -> Data:
    """Return crops of scikit-learn's two photographs, of their given columns; the label says of which one."""
    arrays = [image[:, columns].copy() for image in load_sample_images().images]
    photographs = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    labels = torch.arange(number) % len(photographs)
    cut = v2.Compose([v2.RandomCrop(SIZE), *TO_NUMBERS])
    return torch.stack([cut(photographs[label]) for label in labels]), labels


def folder(path: Path) -> Data:
    """Return all images of an ImageFolder."""
    cut = v2.Compose([v2.Resize(SIZE), v2.CenterCrop(SIZE), v2.ToImage(), *TO_NUMBERS])
    images, labels = zip(*ImageFolder(path, cut), strict=True)
    return torch.stack(images), torch.tensor(labels)


def network(activation: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """Return three convolutions, each with a BatchNorm and an activation for its channels."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), activation(outputs)]

    layers = [*block(3, 32), *block(32, 64), *block(64, 128)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


def train(model: nn.Module, data: Data) -> None:
    """Train a model; one with PWLUs through both phases."""
    steps = EPOCHS * (len(data[1]) // BATCH_SIZE)
    functions = [module for module in model.modules() if isinstance(module, pwlu.PWLU)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if functions:
        pwlu.TwoPhaseLearning(model, phase1_steps=steps // 5, optimizer=optimizer)
    for _ in range(steps):
        chosen = torch.randint(len(data[1]), (BATCH_SIZE,))
        optimizer.zero_grad()
        F.cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()
        optimizer.step()
    model.eval()


def exported(model: nn.Module, images: Tensor) -> bytes:
    """Return the model as an ONNX file for any number of images."""
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(model, (images,), dynamo=True, dynamic_shapes=free, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def in_onnxruntime(file: bytes) -> Run:
    """Return the file's network in onnxruntime's CPU provider."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.numpy()})[0]


def in_openvino(file: bytes) -> Run:
    """Return the file's network in OpenVINO on the CPU, in float32."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled([images.numpy()])[0]


def running(model: nn.Module, runtime: str, example: Tensor) -> Run:
    """Return a model in a runtime."""
    if runtime == "eager":
        return torch.no_grad()(lambda images: model(images).numpy())
    file = exported(model, example)
    return in_onnxruntime(file) if runtime == "onnxruntime" else in_openvino(file)


def milliseconds(run: Run, images: Tensor) -> float:
    """Return the median time of a call, after a tenth of as many for warming up."""
    times: list[float] = []
    for _ in range(CALLS // 10):
        run(images)
    for _ in range(CALLS):
        start = time.perf_counter()
        run(images)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Train with ReLU and with PWLU; print what each runtime makes of both."""
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        root = Path(sys.argv[1])
        data, test = folder(root / "train"), folder(root / "val")
    else:
        data, test = crops(512, slice(0, 400)), crops(128, slice(400, 640))
    num_classes = int(data[1].max()) + 1
    relu, model = (network(make, num_classes) for make in (lambda _: nn.ReLU(), pwlu.PWLU))
    for one in (relu, model):
        train(one, data)
    images, labels = test
    batch = images[:BATCH_SIZE]
    expected = running(model, "eager", batch)(images)
    relu_ms = {name: milliseconds(running(relu, name, batch), batch) for name in dict(FOLDS)}
    print(f"{len(labels)} test images; times of {len(batch)} images, median of {CALLS} calls")
    print("runtime      fold                              accuracy  same top-1  distance      ms   / ReLU")
    for runtime, options in FOLDS:
        run = running(pwlu.fold(model, **options), runtime, batch)
        output = run(images)
        accuracy = (output.argmax(1) == labels.numpy()).mean()
        same = (output.argmax(1) == expected.argmax(1)).mean()
        distance = np.abs(output - expected).max() / np.ptp(expected)
        ms = milliseconds(run, batch)
        words = ", ".join(f"{name}={value}" for name, value in options.items())
        print(
            f"{runtime:<13}{words:<34}{accuracy:>8.1%}{same:>12.1%}{distance:>10.1e}{ms:>8.2f}"
            f"{ms / relu_ms[runtime]:>9.2f}"
        )


if __name__ == "__main__":
    main()
