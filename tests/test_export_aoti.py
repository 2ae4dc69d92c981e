"""A folded model leaves Python: compiled ahead of time by AOTInductor, to be loaded from C++ or Python."""

from pathlib import Path

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package

import pwlu
from tests.perturbed_classifiers import perturbed_classifier, photographs

# Only the code around the kernels, which would take a third of the test's time, is compiled for no speed.
OPTIONS = {"aot_inductor.compile_wrapper_opt_level": "O0"}


def test_folded_resnet18_compiled_ahead_of_time(tmp_path: Path) -> None:
    model, images = perturbed_classifier("resnet18"), photographs("val", 7)
    with torch.no_grad():
        expected = model(images)
        program = torch.export.export(
            pwlu.fold(model), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
        )
        path = aoti_compile_and_package(
            program, package_path=str(tmp_path / "resnet18.pt2"), inductor_configs=OPTIONS
        )
    compiled = aoti_load_package(path)
    for batch in (slice(0, 7), slice(2, 3)):
        torch.testing.assert_close(compiled(images[batch]), expected[batch], rtol=0, atol=1e-4)
