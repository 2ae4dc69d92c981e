"""The cells of a table of the paper or of a study, from configs/sweeps/<table>.yaml.

A grid file holds `program`, `config` (the base configuration's file, in which {row} and {column} stand for
the keys of the cell), `metrics` (what a run's records must have; a column may have its own), `rows`,
`columns` and `scales`. Each row and column has a label, that of the paper (`paper`) or our own (`label`), and
the keys it sets (`set`); a row with `all_columns: true` has one run for all columns. A scale has its
`dataset` with the number of `train_images`, its `seeds`, and also what it sets; one for CPUs has its
`images_per_core_second`. Of two that set the same key the later wins: scale, column, row.

A study also has its `question`, the `claim` of the paper that it tests, and a `reference`: the cell to which
differences are taken, or `{column}_<row>` for one in each column. It may say `against` which rows its cells
with PWLU are compared one by one. `shared` names cells that are runs of another grid, `<cell>: <grid>/<cell
there>`, made and kept there. With `init_from`, `study_<name>/<cell there>`, all other cells start from the
last checkpoint of that cell's run of the same scale and seed.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from engine.config.files import Entry, read_file
from engine.config.load import COCO, IMAGENET, experiment_of, load_config
from pwlu.suggestion import expected_one_of
from tools.paper.numbers import SHARED, Place

OUTPUT = Path("runs/sweeps")  # all sweeps
TABLES = (2, 3, 5, 6, 7)
STUDIES = (
    "starts",
    "starts_mbv3",
    "starts_effb0",
    "num_intervals",
    "realignment",
    "recipe",
    "rates",
    "long",
    "finetune",
    "finetune_mbv3",
)
SMOKE = "smoke"
# What the numbers of a scale mean.
SCALES = {
    "full": "the paper's recipe",
    "small": "a shortened recipe: compare with each other, not with the paper",
    SMOKE: "a few optimizer steps: the numbers mean nothing",
}
FOLDER = Path("configs/sweeps")
_PROGRAMS: dict[str, Any] = {"train_imagenet.py": IMAGENET, "train_coco.py": COCO}
_SECTIONS = ("program", "config", "metrics", "rows", "columns", "scales", "shared")
_OF_STUDIES = ("question", "claim", "reference")
_AGAINST = "against"
_INIT_FROM = "init_from"
_ALL_OF_STUDIES = (*_SECTIONS, *_OF_STUDIES, _AGAINST, _INIT_FROM)


@dataclass(frozen=True)
class Cell:
    """One configuration of a grid: where its numbers stand, and how it differs from its base file."""

    grid: str  # the stem of its grid
    name: str
    runs_in: str  # below the folder of a scale and without the seed: `table5/baseline`
    row: str
    column: str
    column_key: str  # empty where its run is that of all columns
    metrics: tuple[str, ...]
    config: str
    settings: tuple[str, ...]

    @property
    def places(self) -> list[Place]:
        return [Place(self.row, self.column, metric) for metric in self.metrics]

    @property
    def is_shared(self) -> bool:
        """Whether its runs are those of another grid."""
        return not self.runs_in.startswith(f"{self.grid}/")


@dataclass(frozen=True)
class Scale:
    """How much of a recipe is done, on which images."""

    name: str
    dataset: str
    train_images: int
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    images_per_core_second: float | None = None  # of a scale for CPUs

    @property
    def processor(self) -> str:
        """What the scale is meant for: `GPU` or `core`."""
        return "core" if self.images_per_core_second else "GPU"


@dataclass(frozen=True)
class Run:
    """One training run: a cell at a scale with a seed.

    `extra` are settings outside the experiment; `source` is the run from whose last checkpoint it starts.
    """

    program: str
    cell: Cell
    scale: Scale
    seed: int
    folder: Path
    extra: tuple[str, ...] = ()
    source: "Run | None" = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def title(self) -> str:
        """The run as one of its cell, with the folder where it is another grid's."""
        own = f"{self.cell.name}_seed{self.seed}"
        return f"{own} = {self.folder.parent.name}/{self.name}" if self.cell.is_shared else own

    @property
    def arguments(self) -> list[str]:
        """Configuration file, `key=value` words and what it starts from, as the batch scripts take them."""
        start = ["--init-from", str(self.source.checkpoint)] if self.source else []
        return [self.cell.config, *self._words, *start]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    @property
    def command(self) -> list[str]:
        return [self.program, "--config", *self.arguments]

    @cached_property
    def hash(self) -> str:
        """The hash of its experiment and, through it, of the one that it starts from."""
        return experiment_of(self.config, self.starts_from).hash

    @property
    def starts_from(self) -> str | None:
        """What identifies the weights that it starts from, for `experiment_of`; None for random ones."""
        # A file's digest is that of one machine's run.
        return f"run {self.source.hash}" if self.source else None

    @property
    def _words(self) -> list[str]:
        return [*self._settings, *self.extra, f"output={self.folder}"]

    @property
    def _settings(self) -> list[str]:
        return [*self.scale.settings, *self.cell.settings, f"seed={self.seed}"]

    @cached_property
    def declared(self) -> dict[str, Any]:
        """The experiment that the grid declares for this run, by dotted key. Raises ConfigError."""
        return experiment_of(self._load(self._settings)).values

    @cached_property
    def config(self) -> Any:
        """The checked configuration of this run.

        Raises ConfigError, or ValueError if `extra` would make it another experiment than the grid declares.
        """
        config = self._load(self._words)
        found = experiment_of(config).values
        for key in sorted(found.keys() | self.declared.keys()):
            value, declared = (values.get(key, "unset") for values in (found, self.declared))
            if value != declared:
                raise ValueError(
                    f"{key}={value} makes {self.name} another experiment than scale {self.scale.name} of "
                    f"{FOLDER / self.cell.grid}.yaml declares, where it is {declared}: leave it out or "
                    "change that file. (data.root, data.workers and runtime.* but amp may be given; seeds "
                    "with --seeds)"
                )
        return config

    def _load(self, words: Sequence[str]) -> Any:
        return load_config(self.cell.config, words, _PROGRAMS[self.program])


@dataclass(frozen=True)
class Grid:
    """What a table and a study share: cells, and the scales at which they can be run, the largest first."""

    key: str  # on the command line: `5`, `noise`
    stem: str  # in names of files and folders: `table5`, `study_noise`
    program: str
    cells: tuple[Cell, ...]
    scales: dict[str, Scale]
    source: "Grid | None"  # whose one cell's runs all but shared cells start from
    kind: ClassVar[str]

    @property
    def title(self) -> str:
        """What a sentence calls it: `table 5`, `study recipe`."""
        return f"{self.kind} {self.key}"

    @property
    def option(self) -> str:
        return f"--{self.kind} {self.key}"

    @property
    def places(self) -> list[Place]:
        return [place for cell in self.cells for place in cell.places]

    def scale(self, name: str | None) -> Scale:
        """Return a scale by its name, or the largest. Raises ValueError if there is none of that name."""
        if name is None:
            return next(iter(self.scales.values()))
        if name not in self.scales:
            raise ValueError(f"--scale {name}: {self.title} has the scales {', '.join(self.scales)}")
        return self.scales[name]

    def folder(self, output: Path, scale: str) -> Path:
        """Return the folder that holds its runs at a scale, but for shared ones."""
        return output / scale / self.stem

    def runs(
        self, scale: str, output: Path, seeds: Sequence[int] | None = None, extra: Sequence[str] = ()
    ) -> list[Run]:
        """Return the runs of a scale in folders `<output>/<scale>/<stem>/<cell>_seed<seed>`.

        `seeds` takes the place of the scale's own; `extra` are `key=value` words for all runs.
        """
        chosen = self.scales[scale]
        runs = []
        for seed in chosen.seeds if seeds is None else seeds:
            (source,) = self.source.runs(scale, output, [seed], extra) if self.source else (None,)
            for cell in self.cells:
                folder = output / scale / f"{cell.runs_in}_seed{seed}"
                start = None if cell.is_shared else source
                runs.append(Run(self.program, cell, chosen, seed, folder, tuple(extra), start))
        return runs


@dataclass(frozen=True)
class PaperTable(Grid):
    """A table of the paper that is made of training runs; `key` is its number."""

    kind = "table"


@dataclass(frozen=True)
class Study(Grid):
    """A study of ours: what it asks, the claim of the paper it tests, and what cells are compared with."""

    kind = "study"
    question: str
    claim: str
    reference: str
    against: tuple[str, ...] = ()  # keys of rows

    def reference_of(self, cell: Cell) -> Cell | None:
        """Return the cell that a cell is compared with; None for that cell itself and where there is none."""
        if "{column}" in self.reference and not cell.column_key:
            return None
        found = self._named(self.reference.replace("{column}", cell.column_key), "reference")
        return None if found == cell else found

    def others_of(self, cell: Cell) -> list[Cell]:
        """Return the cells of its column with which a cell with PWLU is compared one by one."""
        return [self._named(f"{cell.column_key}_{row}", "against") for row in self.against]

    def _named(self, name: str, key: str) -> Cell:
        cells = {cell.name: cell for cell in self.cells}
        if name not in cells:
            raise ValueError(f"{FOLDER / self.stem}.yaml: {expected_one_of(key, name, cells)}")
        return cells[name]


def load_table(number: int, folder: Path = FOLDER) -> PaperTable:
    """Read the grid of one of TABLES.

    Raises:
        ValueError: no such table, or a grid file that cannot be read or lacks something.
    """
    if number not in TABLES:
        raise ValueError(
            f"table {number}: expected one of {', '.join(map(str, TABLES))}, which are made of training runs "
            "(Table 4 is measured: python -m tools.latency)"
        )
    stem = f"table{number}"
    tree = _read(folder / f"{stem}.yaml", _SECTIONS)
    return PaperTable(str(number), stem, _program(tree), _cells(stem, tree), _scales(tree), None)


def load_study(name: str, folder: Path = FOLDER) -> Study:
    """Read the grid of one of STUDIES. Errors as for `load_table`."""
    if name not in STUDIES:
        raise ValueError(expected_one_of("study", name, STUDIES))
    stem = f"study_{name}"
    tree = _read(folder / f"{stem}.yaml", _ALL_OF_STUDIES)
    question, claim, reference = (tree[key].text for key in _OF_STUDIES)
    against = tuple(_list_of(tree[_AGAINST])) if _AGAINST in tree else ()
    parts = _program(tree), _cells(stem, tree), _scales(tree), _source(tree, folder)
    return Study(name, stem, *parts, question, claim, reference, against)


def all_grids() -> Iterator[Grid]:
    """Yield the grids of all tables, then those of all studies."""
    yield from map(load_table, TABLES)
    yield from map(load_study, STUDIES)


def add_grid_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add `--table N` and `--study NAME`, of which one may be given, or must; for `chosen_grid`."""
    which = parser.add_mutually_exclusive_group(required=required)
    else_all = "" if required else " (all that have runs)"
    tables, studies = ", ".join(map(str, TABLES)), ", ".join(STUDIES)
    which.add_argument("--table", type=int, metavar="N", help=f"of the paper: one of {tables}{else_all}")
    which.add_argument("--study", metavar="NAME", help=f"of ours: one of {studies}{else_all}")


def chosen_grid(arguments: argparse.Namespace) -> Grid | None:
    """Return the grid that the command line names, None if it names none. Raises ValueError."""
    if arguments.table is not None:
        return load_table(arguments.table)
    return None if arguments.study is None else load_study(arguments.study)


class _Section(dict[str, Any]):
    """A part of a grid file; says where a key is missing."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.place}: {key!r} is missing")


def _read(path: Path, known: Sequence[str]) -> _Section:
    """Return the sections of a grid file, with entries as leaves."""
    tree = _Section(str(path))
    for dotted, entry in read_file(path).items():
        *sections, leaf = dotted.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, _Section(f"{place.place}: {section}"))
        place[leaf] = entry
    for key in tree:
        if key not in known:
            raise ValueError(f"{path}: {expected_one_of('section', key, known)}")
    return tree


def _program(tree: _Section) -> str:
    name: str = tree["program"].text
    if name not in _PROGRAMS:
        raise ValueError(f"{tree.place}: {expected_one_of('program', name, _PROGRAMS)}")
    return name


def _cells(stem: str, tree: _Section) -> tuple[Cell, ...]:
    cells = []
    elsewhere = {name: entry.text for name, entry in tree.get("shared", {}).items()}
    for row_key, row in tree["rows"].items():
        shared = "all_columns" in row and row["all_columns"].text == "true"
        columns = {"": _Section("")} if shared else tree["columns"]
        for column_key, column in columns.items():
            name = row_key if shared else f"{column_key}_{row_key}"
            cells.append(
                Cell(
                    grid=stem,
                    name=name,
                    runs_in=elsewhere.pop(name, f"{stem}/{name}"),
                    row=_label(row),
                    column=SHARED if shared else _label(column),
                    column_key=column_key,
                    metrics=tuple(_list_of(column["metrics"] if "metrics" in column else tree["metrics"])),
                    config=tree["config"].text.format(row=row_key, column=column_key),
                    settings=(*_words(column.get("set", {})), *_words(row.get("set", {}))),
                )
            )
    if elsewhere:
        raise ValueError(f"{tree.place}: shared: {', '.join(elsewhere)}: no cell of this grid")
    return tuple(cells)


def _source(tree: _Section, folder: Path) -> Grid | None:
    """Return the grid of the runs that a study starts from, with their cell alone."""
    if _INIT_FROM not in tree:
        return None
    stem, _, name = tree[_INIT_FROM].text.partition("/")
    named = f"{tree.place}: {_INIT_FROM}: {tree[_INIT_FROM].text}"
    if not stem.startswith("study_") or not name:
        raise ValueError(f"{named}: expected study_<name>/<cell>")
    if _INIT_FROM in _read(folder / f"{stem}.yaml", _ALL_OF_STUDIES):
        raise ValueError(f"{named}: {stem} has an {_INIT_FROM} itself; name a run that starts from nothing")
    study = load_study(stem.removeprefix("study_"), folder)
    cells = {cell.name: cell for cell in study.cells if not cell.is_shared}
    if name not in cells:
        raise ValueError(f"{named}: {expected_one_of('cell', name, cells)}")
    if missing := tree["scales"].keys() - study.scales.keys():
        raise ValueError(f"{named}: {stem} has no scale {', '.join(sorted(missing))}")
    return replace(study, cells=(cells[name],))


def _label(section: _Section) -> str:
    return str(section["paper" if "paper" in section else "label"].text)


def _scales(tree: _Section) -> dict[str, Scale]:
    scales = {}
    for name, section in tree["scales"].items():
        seeds = tuple(int(seed) for seed in _list_of(section["seeds"]))
        rate = float(section["images_per_core_second"].text) if "images_per_core_second" in section else None
        images, settings = int(section["train_images"].text), tuple(_words(section.get("set", {})))
        scales[name] = Scale(name, section["dataset"].text, images, seeds, settings, rate)
    return scales


def _list_of(entry: Entry) -> list[Any]:
    values = yaml.safe_load(entry.text)
    if not isinstance(values, list):
        raise ValueError(f"{entry.source}: expected a list such as [0, 1], got {entry.text!r}")
    return values


def _words(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what a section sets as `key=value` words."""
    words: list[str] = []
    for name, value in settings.items():
        deeper = isinstance(value, dict)
        words += _words(value, f"{prefix}{name}.") if deeper else [f"{prefix}{name}={value.text}"]
    return words
