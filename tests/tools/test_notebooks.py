"""Every notebook runs from top to bottom, in a kernel of its own."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.tools.latency_records import latency_record
from tests.tools.sweep_records import write_run
from tools import collect
from tools.paper.grid import load_table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
TABLES = (2, 3, 5, 6, 7)
NAMES = [f"table{number}" for number in range(2, 8)] + [f"figure{number}" for number in (1, 5, 6, 7)]
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CSVs of every cell of every table at scale small, one seed; the n-th cell's numbers are 10 + n."""
    folder = tmp_path_factory.mktemp("small")
    for table in TABLES:
        grid = load_table(table)
        for number, run in enumerate(grid.runs("small", folder / "sweeps", seeds=[0])):
            write_run(run, {metric: 10.0 + number for metric in run.cell.metrics})
        assert collect.collect_grid(grid, "small", folder / "sweeps", folder / "results")
    return folder / "results"


@pytest.fixture(autouse=True)
def own_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels of this environment, without a user's settings and without the tests' own import path."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield


def execute(name: str, parameters: dict[str, Any], start_in: Path) -> list[dict[str, Any]]:
    """Run a notebook with these parameters instead of its own; return all outputs of its cells."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert set(parameters) <= set(cell.source.replace("=", " ").split())
    cell.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    resources = {"metadata": {"path": str(start_in)}}
    NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=resources).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(outputs: list[dict[str, Any]]) -> list[Image.Image]:
    shown = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in shown]


def markdown(outputs: list[dict[str, Any]]) -> str:
    return "\n".join(output["data"].get("text/markdown", "") for output in outputs if "data" in output)


@pytest.mark.parametrize("table", TABLES)
def test_table(table: int, results: Path) -> None:
    text = markdown(execute(f"table{table}", {"SCALE": "small", "RESULTS": str(results)}, FOLDER))
    places = load_table(table).places
    assert f"{len(places)} of {len(places)} numbers" in text
    for number, cell in enumerate(load_table(table).cells):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {cell.row} |"))
        assert f" {10 + number:.2f} (n = 1) |" in row


def test_without_runs_there_is_the_command_that_makes_them(tmp_path: Path) -> None:
    assert "Not run yet: `make table-5 SCALE=full" in markdown(
        execute("table5", {"RESULTS": str(tmp_path)}, FOLDER)
    )
    outputs = execute("figure1", {"RESULTS": str(tmp_path)}, FOLDER)
    assert any("Not run yet: `make table-2 SCALE=full" in output.get("text", "") for output in outputs)
    assert len(pictures(outputs)) == 1


def test_table_4(tmp_path: Path) -> None:
    record = tmp_path / "latency.json"
    record.write_text(json.dumps(latency_record()))
    outputs = execute("table4", {"RECORD": str(record)}, FOLDER)
    assert len(pictures(outputs)) == 1
    assert "| pwlu | 24.00 (21.60 to 28.80) | 1.20 | 12.00 (10.80 to 14.40) | 1.20 |" in markdown(outputs)


@pytest.mark.parametrize("figure", [1, 5])
def test_improvements(figure: int, results: Path) -> None:
    outputs = execute(f"figure{figure}", {"SCALE": "small", "RESULTS": str(results)}, ROOT)
    (picture,) = pictures(outputs)
    assert min(picture.size) > 500


@pytest.mark.parametrize(("figure", "labels"), [(6, ["one", "other"]), (7, ["one"])])
def test_trained_runs(figure: int, labels: list[str], trained: Path) -> None:
    parameters = {"RUNS": [str(trained) for _ in labels], "LABELS": labels, "IMAGES": 7}
    (picture,) = pictures(execute(f"figure{figure}", parameters, FOLDER))
    assert min(picture.size) > 500


def test_missing_runs_are_explained(tmp_path: Path) -> None:
    """The tool's own sentence reaches the reader of a notebook."""
    with pytest.raises(CellExecutionError, match="nothing: there is no such run folder or checkpoint"):
        execute("figure6", {"RUNS": [str(tmp_path / "nothing")], "LABELS": ["one"]}, FOLDER)


@pytest.mark.parametrize("name", NAMES)
def test_committed_form(name: str) -> None:
    """No outputs and no counts; the first cell finds the repository; notebooks/README.md lists it."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert code[0].source == nbformat.read(FOLDER / "table2.ipynb", as_version=4).cells[1].source
    assert f"[{name}]({name}.ipynb)" in (FOLDER / "README.md").read_text()
