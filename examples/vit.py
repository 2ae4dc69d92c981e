"""Put PWLU into timm's vision transformer, where channels are the last dimension, and train it on digits.

python examples/vit.py
"""

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import pwlu

STEPS, PHASE1_STEPS, BATCH_SIZE, NUM_TEST_IMAGES = 300, 40, 64, 360


def main() -> None:
    """Replace every GELU, train on four fifths of the digits, print the accuracy on the rest."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
    labels = torch.tensor(digits.target)
    train, test = torch.randperm(len(images)).tensor_split([len(images) - NUM_TEST_IMAGES])

    size = {"img_size": 8, "patch_size": 2, "embed_dim": 64, "depth": 2, "num_heads": 4}  # 16 patches
    model = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=10, **size)
    # before the optimizer is made: it must see the new parameters
    print(pwlu.replace_activations(model, input_size=(1, 8, 8), channel_dim=-1))
    optimizer = torch.optim.AdamW(pwlu.parameter_groups(model, weight_decay=0.05), lr=2e-3)
    # needs no name: the hooks that it registers with the optimizer keep it alive
    pwlu.TwoPhaseLearning(model, phase1_steps=PHASE1_STEPS, optimizer=optimizer)

    for _ in range(STEPS):
        batch = train[torch.randint(len(train), (BATCH_SIZE,))]
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"{accuracy:.1%} of {len(test)} test images")


if __name__ == "__main__":
    main()
