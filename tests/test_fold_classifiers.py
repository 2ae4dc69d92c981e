"""`pwlu.fold` on the five networks of Table 2, with and without their BatchNorms absorbed."""

import pytest
import torch

import pwlu
from tests.perturbed_classifiers import CLASSIFIERS, perturbed_classifier, photographs

# Sites, and how many of them have a BatchNorm of their own before them: in a ResNet's block the last
# BatchNorm's output is added to the shortcut first.
ABSORBED = {
    "resnet18": (17, 1 + 8),
    "resnet50": (49, 1 + 2 * 16),
    "mobilenetv2_100": (35, 35),
    "mobilenetv3_small_100": (23, 23),
    "efficientnet_b0": (33, 33),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_folded_equals_trained(name: str) -> None:
    """In float64, where nothing hides in rounding, and in float32."""
    model, images = perturbed_classifier(name), photographs("val", 8)
    with torch.no_grad():
        rounded = model(images)
        exact = model.double()(images.double())
        absorbed = pwlu.fold(model, absorb_batch_norm=True, input_size=images.shape[1:])
        for folded in (pwlu.fold(model), absorbed):
            torch.testing.assert_close(folded(images.double()), exact, rtol=0, atol=1e-10)
            torch.testing.assert_close(folded.float()(images), rounded, rtol=0, atol=1e-4)
    sites, absorbable = ABSORBED[name]
    assert absorbed.fold_report.summary().startswith(f"{absorbable} of {sites} PWLUs absorbed")
    assert sum(isinstance(module, pwlu.FoldedPWLU) for module in absorbed.modules()) == sites
