"""What the pages say can be done: their links lead somewhere, their commands exist, their code runs."""

import copy
import importlib.util
import itertools
import re
import subprocess
from pathlib import Path

import pytest
import timm
import torch

import pwlu

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "docs", "notebooks", "pwlu_ext", "results", "scripts")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_there(page: Path) -> None:
    blocks = "\n".join(re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    words = set(re.findall(r"(?<=-m )(?:tools|engine|pwlu_ext)[\w.]*", blocks))
    assert [name for name in words if importlib.util.find_spec(name) is None] == []
    files = re.findall(r"(?:configs|scripts)/[\w./]+|train_\w+\.py|examples/\w+\.py", blocks)
    assert [name for name in files if not (ROOT / name).exists()] == []
    targets = sorted(set(re.findall(r"^make ([\w-]+)", blocks, re.MULTILINE)))
    subprocess.run(["make", "-n", "help", *targets], cwd=ROOT, check=True, capture_output=True)


def test_design_names_what_the_files_have() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    places = re.findall(r"`([\w.]+)`(?: and `([\w.]+)`)? in \[.*?\]\(\.\./(.*?)\)", text)
    assert len(places) > 3
    for *names, file in places:
        words = [name.split(".")[-1] for name in names if name]
        assert [w for w in words if not re.search(rf"\b{w}\(", (ROOT / file).read_text())] == [], file


def readme_code() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_readme_code_for_training_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = readme_code()
    names = {"steps_per_epoch": 1}
    exec(compile(code, "README.md", "exec"), names)
    assert "replaced" in capsys.readouterr().out
    model, optimizer, phases = names["model"], names["optimizer"], names["phases"]
    for _ in range(5):
        assert phases.phase == 1
        model(torch.randn(2, 3, 64, 64)).sum().backward()
        optimizer.step()
    assert phases.phase == 2


def test_code_for_eight_bits_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables compute what the quantised network computes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    page = (ROOT / "docs" / "deployment.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 4, 3, stride=2)
    model = torch.nn.Sequential(convolution, pwlu.PWLU(4), torch.nn.Conv2d(4, 5, 3)).eval()
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "deployment.md", "exec"), {"model": model})
    images = {"x": torch.randn(5, 3, 64, 64).numpy()}
    outputs = [
        onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"]).run(None, images)[0]
        for name in ("float.onnx", "8bit.onnx", "tables.onnx")
    ]
    assert (outputs[1] == outputs[2]).all()
    assert 0 < abs(outputs[0] - outputs[2]).max() < 0.1 * abs(outputs[0]).max()


def test_readme_code_for_a_trained_network_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It converts without a loss of accuracy, and only the functions move."""
    _, code = readme_code()
    convert, learn = code.split("model.eval()")
    assert len(code.splitlines()) == 10
    torch.manual_seed(0)
    trained = timm.create_model("mobilenetv3_small_100", num_classes=5).train()
    images = torch.randn(16, 3, 64, 64)
    for _ in range(10):
        trained(images)  # statistics of its BatchNorms
    before = copy.deepcopy(trained.state_dict())
    logits = trained.eval()(images)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: trained)  # nothing is downloaded
    loader = [(part, torch.arange(4)) for part in images.split(4)]
    names = {"itertools": itertools, "timm": timm, "pwlu": pwlu, "torch": torch, "loader": loader}
    exec(compile(convert, "README.md", "exec"), names)
    assert re.search(r"calibrated (\d+) of \1 sites on 4 batches", capsys.readouterr().out)
    assert (trained(images) - logits).abs().max() < 0.1 * logits.abs().max()
    functions = {name: value.clone() for name, value in trained.state_dict().items() if name not in before}
    exec(compile(f"model.eval(){learn}", "README.md", "exec"), names)
    after = trained.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not torch.equal(after[n], v) for n, v in functions.items() if n.endswith("points"))
