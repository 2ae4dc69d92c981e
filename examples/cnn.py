"""Train a small CNN with PWLU on scikit-learn's digits, in two phases.

python examples/cnn.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import pwlu

EPOCHS, PHASE1_EPOCHS, BATCH_SIZE, NUM_TEST_IMAGES = 6, 2, 32, 360


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a convolution, its normalisation, and one learned function per channel."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        pwlu.PWLU(out_channels),
    )


def main() -> None:
    """Train on four fifths of the digits, print the accuracy on the rest."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
    labels = torch.tensor(digits.target)
    train, test = torch.randperm(len(images)).tensor_split([len(images) - NUM_TEST_IMAGES])

    model = nn.Sequential(
        block(1, 16), nn.MaxPool2d(2), block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    groups = pwlu.parameter_groups(model, weight_decay=1e-4)  # the functions do not decay
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    steps_per_epoch = -(-len(train) // BATCH_SIZE)
    phases = pwlu.TwoPhaseLearning(model, phase1_steps=PHASE1_EPOCHS * steps_per_epoch, optimizer=optimizer)

    for epoch in range(EPOCHS):
        model.train()
        phase = phases.phase
        for batch in train[torch.randperm(len(train))].split(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
        print(f"epoch {epoch + 1}, phase {phase}: {accuracy:.1%} of {len(test)} test images")


if __name__ == "__main__":
    main()
