"""Put PWLU into a network that is already trained, and fine-tune the activations alone.

python examples/finetune.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pwlu

EPOCHS, FINE_TUNING_EPOCHS, BATCH_SIZE, NUM_TEST_IMAGES = 6, 6, 32, 360

Batches = DataLoader[tuple[Tensor, ...]]


def digits() -> tuple[Batches, Batches]:
    """Return batches of four fifths of scikit-learn's digits to train with, and of the rest to test with."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
    pairs = TensorDataset(images, torch.tensor(data.target))
    train, test = torch.utils.data.random_split(pairs, [len(pairs) - NUM_TEST_IMAGES, NUM_TEST_IMAGES])
    return DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(test, NUM_TEST_IMAGES)


def network() -> nn.Sequential:
    """Return a small network with Hardswish."""
    first = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
    second = nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32, 10))


def train_epoch(model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer) -> None:
    """Take a step with every batch."""
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the share of images that the model recognises, in evaluation mode."""
    model.eval()
    return sum(float((model(x).argmax(1) == y).sum()) for x, y in batches) / NUM_TEST_IMAGES


def main() -> None:
    """Train with Hardswish, convert, fine-tune the functions; print the accuracy after each."""
    torch.manual_seed(0)
    train, test = digits()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(EPOCHS):
        train_epoch(model.train(), train, optimizer)
    print(f"Hardswish: {accuracy(model, test):.1%} of the test images")

    print(pwlu.replace_activations(model, input_size=(1, 8, 8), init="replaced"))
    print(pwlu.calibrate(model, train))  # some batches would do: itertools.islice(train, 20)
    print(f"converted to PWLU: {accuracy(model, test):.1%}")

    model.requires_grad_(False)  # weights stay, and in evaluation mode BatchNorms too
    functions = [module.requires_grad_() for module in model.modules() if isinstance(module, pwlu.PWLU)]
    optimizer = torch.optim.SGD([p for f in functions for p in f.parameters()], lr=0.05, momentum=0.9)
    for _ in range(FINE_TUNING_EPOCHS):
        train_epoch(model.eval(), train, optimizer)
    print(f"PWLU fine-tuned: {accuracy(model, test):.1%}")


if __name__ == "__main__":
    main()
