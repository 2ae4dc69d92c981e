"""What is still to be done of a sweep, and what it costs: the plan that is printed before anything starts."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.config.load import CocoConfig, ImageNetConfig
from engine.records.console import listed
from engine.runs.folder import RunFolder
from engine.training.checkpoint import require_same
from tools.paper.grid import Run

# Training images per second of one GPU, with the source; an assumption about the machine at hand, which
# --images-per-second replaces.
_CLASSIFIERS = {  # 224 px, mixed precision, channels last, the network's own activations
    "resnet18": 3481.78,
    "resnet50": 1218.01,
    "mobilenetv2_100": 2313.10,
    "mobilenetv3_small_100": 8035.08,
    "efficientnet_b0": 1751.72,
}
_DETECTORS = {  # 800 px, float32, ReLU: 16 images on 8 GPUs in so many seconds
    "mask_rcnn": 16 / 8 / 0.261,
    "retinanet": 16 / 8 / 0.205,
}
_SOURCES = {
    "train_imagenet.py": "one RTX 3090 in mixed precision, channels last, with the networks' own "
    "activations, as timm publishes in results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv",
    "train_coco.py": "one V100 in float32 with ReLU, as detectron2 publishes in MODEL_ZOO.md (R50-FPN, 3x)",
}
FINISHED, DIVERGED, BROKEN, NEW = "finished", "diverged", "to be resumed", "new"


@dataclass(frozen=True)
class Item:
    """A run, how far it is, the images it trains on in all, and by estimate its `hours` on a GPU or core."""

    run: Run
    state: str
    images: int
    hours: float


def plan(runs: Sequence[Run], images_per_second: float | None = None) -> list[Item]:
    """Return the plan of a sweep; `images_per_second` of one GPU or core, None as `assumption` says.

    Raises:
        ValueError: a configuration is wrong, or a run folder belongs to another experiment.
    """
    items = []
    for run in runs:
        images = training_images(run)
        rate = images_per_second or run.scale.images_per_core_second or published_rate(run)
        items.append(Item(run, state_of(run), images, images / rate / 3600))
    return items


def state_of(run: Run) -> str:
    """Return how far a run is. Raises CheckpointError if its folder belongs to another experiment."""
    folder = RunFolder(run.folder)
    manifest = folder.read_manifest()
    if manifest is not None:
        # The trainer refuses such a folder itself; here the user learns it before hours of other runs.
        declared = run.declared | ({"init_from": run.starts_from} if run.source else {})
        require_same(_experiment(manifest), declared, folder.path)
    if folder.is_finished():
        return FINISHED
    if manifest is None:
        return NEW
    return BROKEN if folder.divergence() is None else DIVERGED


def _experiment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment of a manifest, with the run that it started from as `Run.starts_from` says it."""
    experiment = dict(manifest["experiment"])
    starts = [start["init_from"] for start in manifest.get("starts", ()) if "init_from" in start]
    if starts and "experiment_hash" in starts[0]:
        experiment["init_from"] = f"run {starts[0]['experiment_hash']}"
    return experiment


def require_sources(items: Sequence[Item], made: Sequence[Item] = ()) -> None:
    """Raise ValueError where a new run starts from one that is neither finished nor among those `made`."""
    known = {item.run.folder for item in made}
    missing = {
        run.source.folder: run.source
        for run in (item.run for item in items if item.state == NEW)
        if run.source and run.source.folder not in known and state_of(run.source) != FINISHED
    }
    if missing:
        source, *_ = missing.values()
        seeds = ",".join(str(one.seed) for one in missing.values())
        found = [f"{folder} is {state_of(one)}" for folder, one in missing.items()]
        study = source.cell.grid.removeprefix("study_")
        raise ValueError(
            f"runs to start from are not finished: {listed(found)}; make them first: python -m tools.sweep "
            f"--study {study} --scale {source.scale.name} --cells {source.cell.name} --seeds {seeds}"
        )


def training_images(run: Run) -> int:
    """Return how many images all optimizer steps of a run take."""
    config = run.config
    if isinstance(config, ImageNetConfig):
        steps = config.epochs * (run.scale.train_images // config.global_batch_size)
    else:
        steps = config.steps
    return steps * config.global_batch_size


def published_rate(run: Run) -> float:
    """Return images per second: a published rate, scaled with the number of pixels to the run's size."""
    config = run.config
    if isinstance(config, CocoConfig):
        pixels = config.data.shorter_side_px * config.data.longer_side_px / (800 * 1333)
        return _DETECTORS[config.model.architecture] / pixels
    return _CLASSIFIERS[config.model.name] / (config.data.image_size_px / 224) ** 2


def assumption(run: Run, images_per_second: float | None) -> str:
    """Return a sentence on what the hours of a plan rest on."""
    rate, processor = images_per_second or run.scale.images_per_core_second, run.scale.processor
    if rate is not None:
        return f"{processor}-hours at {rate:g} training images per second and {processor}."
    sentence = (
        f"GPU-hours assume {_SOURCES[run.program]}, scaled with the number of pixels; other activations, "
        "evaluation and starting are not in it. Give --images-per-second for another machine."
    )
    return textwrap.fill(sentence, 100, break_long_words=False, break_on_hyphens=False)


def plan_text(items: Sequence[Item], assumed: str) -> str:
    """Return the plan as a table, with what is still to be done in the last line."""
    width = max(len(item.run.title) for item in items)
    hours = f"{items[0].run.scale.processor}-hours"
    lines = [f"{'run':{width}}  {'state':13}  {'images':>13}  {hours:>10}"]
    for item in items:
        numbers = f"{item.images:13,}  {item.hours:10.3f}"
        lines.append(f"{item.run.title:{width}}  {item.state:13}  {numbers}")
    scale, todo, counts = items[0].run.scale, unfinished(items), Counter(item.state for item in items)
    diverged = f"diverged: {counts[DIVERGED]}; " if counts[DIVERGED] else ""
    lines += [
        assumed,
        f"Scale {scale.name}: {scale.dataset}, {scale.train_images:,} training images.",
        f"Runs: {len(items)}; finished: {counts[FINISHED]}; {diverged}to do: {len(todo)}, "
        f"{sum(item.images for item in todo):,} images, {sum(item.hours for item in todo):.2f} {hours} "
        "(less what broken runs have done)",
    ]
    return "\n".join(lines)


def unfinished(items: Sequence[Item]) -> list[Item]:
    """Return what is still to be done."""
    # A diverged run is a result: it would diverge again.
    return [item for item in items if item.state in (BROKEN, NEW)]
