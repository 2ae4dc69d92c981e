"""The grid of a table or study, configs/sweeps/<table>.yaml: base configuration x rows x columns x seeds.

A grid file holds `program`, `config` (the base configuration's file, in which {row} and {column} stand for
the keys of the cell), `metrics` (what a run's records must have; a column may have its own), `rows`,
`columns` and `scales`. Each row and column has a label, that of the paper (`paper`) or our own (`label`), and
the keys it sets (`set`); a row with `all_columns: true` has one run for all columns. A scale has its
`dataset` with the number of `train_images`, its `seeds`, and also what it sets; one for CPUs has its
`images_per_core_second`. Of two that set the same key the later wins: scale, column, row.

A study also has its `question`, the `claim` of the paper that it tests, and `comparisons`, which
tools/study/study.py explains. Studies ask several questions about one network, and the answer to each needs
the same run in its middle: `shared` names cells that are runs of another grid, `<cell>: <grid>/<cell there>`,
made and kept there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from engine.config.files import Entry, read_file, suggestion
from engine.config.load import COCO, IMAGENET, experiment_values, load_config
from tools.paper.numbers import SHARED, Place, Table

OUTPUT = Path("runs/sweeps")  # all sweeps
TABLES = (2, 3, 5, 6, 7)
STUDIES = (
    "activations",
    "activations_mbv3",
    "activations_effb0",
    "boundaries",
    "intervals",
    "choices",
    "noise",
    "length",
)
GRIDS: tuple[Table, ...] = (*TABLES, *STUDIES)
# What the numbers of a scale mean.
SCALES = {
    "full": "the paper's recipe",
    "small": "a shortened recipe: compare with each other, not with the paper",
    "smoke": "a few optimizer steps: the numbers mean nothing",
}
FOLDER = Path("configs/sweeps")
_PROGRAMS: dict[str, Any] = {"train_imagenet.py": IMAGENET, "train_coco.py": COCO}
_OF_STUDIES = ("question", "claim", "comparisons")
_SECTIONS = ("program", "config", "metrics", "rows", "columns", "scales", "shared", *_OF_STUDIES)


@dataclass(frozen=True)
class Cell:
    """One configuration of a table or study: where its numbers stand, and how it differs from its base file.

    `runs_in` is where its runs are, below the folder of a scale and without the seed: `table5/baseline`.
    """

    table: Table
    name: str
    runs_in: str
    row: str
    column: str
    metrics: tuple[str, ...]
    config: str
    settings: tuple[str, ...]

    @property
    def places(self) -> list[Place]:
        """The places in the table or study that a run of this cell fills."""
        return [Place(self.table, self.row, self.column, metric) for metric in self.metrics]


@dataclass(frozen=True)
class Scale:
    """How much of a recipe is done, on which images.

    A scale for CPUs has a rate: how many training images one core does in a second, more or less.
    """

    name: str
    dataset: str
    train_images: int
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    images_per_core_second: float | None = None


@dataclass(frozen=True)
class Run:
    """One training run: a cell at a scale with a seed. `extra` are settings outside the experiment."""

    program: str
    cell: Cell
    scale: Scale
    seed: int
    folder: Path
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The run as one of its cell, with the folder where it is another grid's."""
        own = f"{self.cell.name}_seed{self.seed}"
        shared = stem(self.cell.table) != self.folder.parent.name
        return f"{own} = {self.folder.parent.name}/{self.name}" if shared else own

    @property
    def arguments(self) -> list[str]:
        """Configuration file and `key=value` words, as the batch scripts take them."""
        return [self.cell.config, *self._settings, *self.extra, f"output={self.folder}"]

    @property
    def command(self) -> list[str]:
        """Program and arguments, from the root of the repository."""
        return [self.program, "--config", *self.arguments]

    @property
    def _settings(self) -> list[str]:
        return [*self.scale.settings, *self.cell.settings, f"seed={self.seed}"]

    @cached_property
    def declared(self) -> dict[str, Any]:
        """The experiment that the grid declares for this run, by dotted key. Raises ConfigError."""
        return experiment_values(self._load(self._settings))

    @cached_property
    def config(self) -> Any:
        """The checked configuration of this run.

        Raises ConfigError, or ValueError if `extra` would make it another experiment than the grid declares.
        """
        config = self._load(self.arguments[1:])
        found = experiment_values(config)
        for key in sorted(found.keys() | self.declared.keys()):
            value, declared = (values.get(key, "unset") for values in (found, self.declared))
            if value != declared:
                raise ValueError(
                    f"{key}={value} makes {self.name} another experiment than scale {self.scale.name} of "
                    f"{title(self.cell.table)} declares, where it is {declared}: leave it out or "
                    f"change the files of {FOLDER}. (data.root, data.workers and runtime.* but amp may be "
                    "given; seeds with --seeds)"
                )
        return config

    def _load(self, words: Sequence[str]) -> Any:
        return load_config(self.cell.config, words, _PROGRAMS[self.program])


@dataclass(frozen=True)
class Grid:
    """All cells of a table or study, and the scales at which they can be run, the largest first.

    `question`, `claim` and `comparisons` are those of a study, empty for a table.
    """

    table: Table
    program: str
    cells: tuple[Cell, ...]
    scales: dict[str, Scale]
    question: str = ""
    claim: str = ""
    comparisons: tuple[str, ...] = ()

    def scale(self, name: str | None) -> Scale:
        """Return a scale by its name, or the largest. Raises ValueError if there is none of that name."""
        if name is None:
            return next(iter(self.scales.values()))
        if name not in self.scales:
            raise ValueError(f"--scale {name}: {title(self.table)} has the scales {', '.join(self.scales)}")
        return self.scales[name]

    def runs(
        self,
        scale: str,
        output: Path,
        seeds: Sequence[int] | None = None,
        extra: Sequence[str] = (),
    ) -> list[Run]:
        """Return the runs of a scale in folders `<output>/<scale>/<table>/<cell>_seed<seed>`.

        `seeds` takes the place of the scale's own; `extra` are `key=value` words for all runs.
        """
        chosen = self.scales[scale]
        return [
            Run(self.program, cell, chosen, seed, output / scale / f"{cell.runs_in}_seed{seed}", tuple(extra))
            for seed in (chosen.seeds if seeds is None else seeds)
            for cell in self.cells
        ]


def stem(table: Table) -> str:
    """Return the word for a table or study in names of files and folders: `table5`, `study_boundaries`."""
    return f"table{table}" if isinstance(table, int) else f"study_{table}"


def title(table: Table) -> str:
    """Return what a sentence calls a table or study."""
    return f"table {table}" if isinstance(table, int) else f"study {table}"


def option(table: Table) -> str:
    """Return the words that name a table or study on a command line."""
    return f"--table {table}" if isinstance(table, int) else f"--study {table}"


def scale_folder(output: Path, scale: str, table: Table) -> Path:
    """Return the folder that holds the runs of a table or study at a scale, but for shared ones."""
    return output / scale / stem(table)


def load_grid(table: Table, folder: Path = FOLDER) -> Grid:
    """Read the grid of one of TABLES or STUDIES.

    Raises:
        ValueError: no such table or study, or a grid file that cannot be read or lacks something.
    """
    _require_known(table)
    tree, path = _read(table, folder), _path(table, folder)
    try:
        if tree["program"].text not in _PROGRAMS:
            expected = " or ".join(_PROGRAMS)
            raise ValueError(f"{path}: program: expected {expected}, got {tree['program'].text!r}")
        scales = {name: _scale(name, entry) for name, entry in tree["scales"].items()}
        return Grid(table, tree["program"].text, tuple(_cells(table, tree)), scales, *_study(table, tree))
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]!r} is missing in one of its sections") from error


def _require_known(table: Table) -> None:
    if table in GRIDS:
        return
    if isinstance(table, str):
        raise ValueError(f"study {table}: expected one of {', '.join(STUDIES)}{suggestion(table, STUDIES)}")
    known = ", ".join(map(str, TABLES))
    raise ValueError(
        f"table {table}: expected one of {known}, which are made of training runs (Table 4 is measured: "
        "python -m tools.latency)"
    )


def _study(table: Table, tree: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return question, claim and comparisons; one with <column> stands for one in each column."""
    if isinstance(table, int):
        return "", "", ()
    comparisons = [
        line.replace("<column>", column)
        for line in _list_of(tree["comparisons"])
        for column in (tree["columns"] if "<column>" in line else [""])
    ]
    return tree["question"].text, tree["claim"].text, tuple(comparisons)


def _read(table: Table, folder: Path) -> dict[str, Any]:
    """Return the sections of a grid file as nested dicts of entries."""
    path = _path(table, folder)
    tree = _nested(read_file(path))
    unknown = [key for key in tree if key not in _SECTIONS]
    if unknown:
        raise ValueError(f"{path}: unknown section {unknown[0]!r}{suggestion(unknown[0], _SECTIONS)}")
    return tree


def _list_of(entry: Entry) -> list[Any]:
    """Return an entry's value. Raises ValueError if it is no list."""
    values = yaml.safe_load(entry.text)
    if not isinstance(values, list):
        raise ValueError(f"{entry.source}: expected a list such as [0, 1], got {entry.text!r}")
    return values


def _path(table: Table, folder: Path) -> Path:
    return folder / f"{stem(table)}.yaml"


def _cells(table: Table, tree: dict[str, Any]) -> list[Cell]:
    cells = []
    elsewhere = {name: entry.text for name, entry in tree.get("shared", {}).items()}
    for row_key, row in tree["rows"].items():
        shared = "all_columns" in row and row["all_columns"].text == "true"
        columns = {SHARED: {}} if shared else tree["columns"]
        for column_key, column in columns.items():
            name = row_key if shared else f"{column_key}_{row_key}"
            cells.append(
                Cell(
                    table,
                    name,
                    elsewhere.pop(name, f"{stem(table)}/{name}"),
                    _label(row),
                    SHARED if shared else _label(column),
                    tuple(_list_of(column.get("metrics", tree["metrics"]))),
                    tree["config"].text.format(row=row_key, column=column_key),
                    (*_words(column), *_words(row)),
                )
            )
    if elsewhere:
        raise ValueError(f"shared: {', '.join(elsewhere)}: no cell of {title(table)}")
    return cells


def _label(section: dict[str, Any]) -> str:
    text: str = section["paper" if "paper" in section else "label"].text
    return text


def _scale(name: str, entry: dict[str, Any]) -> Scale:
    seeds = tuple(int(seed) for seed in _list_of(entry["seeds"]))
    rate = float(entry["images_per_core_second"].text) if "images_per_core_second" in entry else None
    images = int(entry["train_images"].text)
    return Scale(name, entry["dataset"].text, images, seeds, tuple(_words(entry)), rate)


def _words(section: dict[str, Any]) -> list[str]:
    """Return what a section sets as `key=value` words."""

    def walk(tree: dict[str, Any], prefix: str) -> list[str]:
        words: list[str] = []
        for name, value in tree.items():
            deeper = isinstance(value, dict)
            words += walk(value, f"{prefix}{name}.") if deeper else [f"{prefix}{name}={value.text}"]
        return words

    return walk(section.get("set", {}), "")


def _nested(entries: dict[str, Entry]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, entry in entries.items():
        *sections, leaf = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = entry
    return tree
