"""Compare finished runs that differ in the activation and the seed alone.

    python -m tools.tables.compare runs/photos_* --title "ResNet-18 on 64 px photographs" --output
    results/photos_r18.json

Writes a record of every run (settings, final metrics, commit, hardware, versions) and, beside it, a table in
Markdown.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.runs.folder import RunFolder
from engine.runs.manifest import short_commit
from tools.command_line import tool_parser

FREE_SETTINGS = ("activation.name", "seed")
# What a table shows of the metrics, as far as a run has them, all in percent.
SHOWN = {
    "top1": "top-1 (%)",
    "bbox_AP": "box AP",
    "bbox_AP50": "box AP50",
    "segm_AP": "mask AP",
    "segm_AP50": "mask AP50",
}


def read_run(folder: Path) -> dict[str, Any]:
    """What a finished run was and what came out, as plain values.

    Raises:
        ValueError: the folder holds no finished run.
    """
    if not (folder / "FINISHED").exists():
        what = "give its command again" if RunFolder(folder).divergence() is None else "it diverged"
        raise ValueError(f"{folder} holds no finished run, as it has no file FINISHED: {what}")
    manifest = json.loads((folder / "manifest.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "eval"][-1]
    started = manifest["starts"][-1]
    return {
        "settings": manifest["experiment"],
        "data": manifest["data"],
        **{name: last[name] for name in SHOWN if name in last},
        "epochs": last["epoch"],
        "code": started["code"],
        "hardware": started["hardware"],
        "packages": started["packages"],
    }


def require_comparable(runs: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError, naming the setting, if runs differ in more than the activation and the seed."""
    for run in runs[1:]:
        for key, value in (run["settings"] | run["data"]).items():
            first = (runs[0]["settings"] | runs[0]["data"]).get(key)
            if key not in FREE_SETTINGS and value != first:
                raise ValueError(
                    f"the runs are not comparable: {key} is {first!r} in one and {value!r} in another"
                )


def table(runs: Sequence[dict[str, Any]], title: str, source: str) -> str:
    """A Markdown table of the shown metrics in percent: mean, standard deviation, number of seeds."""
    by_activation: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        by_activation.setdefault(run["settings"]["activation.name"], []).append(run)
    shown = [name for name in SHOWN if name in runs[0]]
    titles = ["activation", *(SHOWN[name] for name in shown), "seeds"]
    body = [
        [name, *(mean_and_spread([run[metric] for run in group]) for metric in shown), str(len(group))]
        for name, group in sorted(by_activation.items())
    ]
    if len(shown) == 1:
        titles.append("each seed")
        for line, (_, group) in zip(body, sorted(by_activation.items()), strict=True):
            line.append(", ".join(f"{run[shown[0]]:.2f}" for run in group))
    rows = [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *body)]
    ending = f"Made by `python -m tools.tables.compare` from {source}."
    return "\n".join([f"# {title}", "", *rows, "", *notes(runs), ending]) + "\n"


def mean_and_spread(values: Sequence[float]) -> str:
    """`62.00 ± 2.00`, or the one value there is."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def notes(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know about the runs: scale, settings, code and hardware."""
    settings, data = runs[0]["settings"], runs[0]["data"]
    commits = sorted({short_commit(run["code"]) for run in runs})
    hardware = sorted({f"{run['hardware']['device']} ({run['hardware'].get('cpu', '')})" for run in runs})
    what = detector(settings, data) if "model.architecture" in settings else classifier(settings, data)
    return [
        f"{what}, T' = {settings['phase1_epochs']:g} epochs (for PWLU), batches of "
        f"{settings['global_batch_size']}, mixed precision {settings['runtime.amp']}. Values after the last "
        "step; ± is the standard deviation over seeds.",
        f"Commit {', '.join(commits)}; {', '.join(hardware)}; torch {runs[0]['packages']['torch']}.",
        "",
    ]


def classifier(settings: dict[str, Any], data: dict[str, Any]) -> str:
    """The scale of a classifier's run."""
    return (
        f"{settings['model.name']}, {data['num_train']} training and {data['num_val']} validation images in "
        f"{data['num_classes']} classes at {settings['data.image_size_px']} px, {settings['epochs']} epochs"
    )


def detector(settings: dict[str, Any], data: dict[str, Any]) -> str:
    """The scale of a detector's run."""
    same = settings["data.train_split"] == settings["data.val_split"]
    images = f"{data['num_train']} training and {data['num_val']} validation images"
    if same:
        images = f"{data['num_train']} images, evaluated on the same images"
    network = f"{settings['model.architecture']} ({settings['model.engine']}) on {settings['model.backbone']}"
    size = f"{settings['data.shorter_side_px']} x {settings['data.longer_side_px']} px"
    return (
        f"{network} with {settings['model.pyramid_channels']} channels in the pyramid, {images}, at most "
        f"{size}, {settings['steps']} steps"
    )


def main() -> None:
    """Read the runs, write the record and the table, print the table."""
    parser = tool_parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--title", required=True)
    parser.add_argument(
        "--output", required=True, type=Path, help="the record; the table gets the suffix .md"
    )
    arguments = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in arguments.runs]
        require_comparable(runs)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"title": arguments.title, "runs": runs}, indent=1) + "\n")
    text = table(runs, arguments.title, arguments.output.name)
    arguments.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
