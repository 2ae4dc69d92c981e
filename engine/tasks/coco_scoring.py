"""COCO's scores of detections: average precision and recall of boxes and masks.

pycocotools is the reference. faster-coco-eval gives the same numbers in a fraction of the time, where it is
installed and asked for.
"""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.records.console import warn

KINDS = ("bbox", "segm")
SCORERS = ("pycocotools", "faster-coco-eval")
# In the order of both libraries' `stats`; s, m, l: areas below 32**2, below 96**2 and above, in pixels;
# the number after AR: detections per image.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Entry = Mapping[str, Any]


def score(
    ground_truth: Mapping[str, Any],
    results: Sequence[Entry],
    kinds: Sequence[str] = ("bbox",),
    scorer: str = "pycocotools",
) -> dict[str, float]:
    """Return COCO's twelve numbers per kind, `bbox_AP` ... `segm_ARl`, from 0 to 1.

    Warns where there are no detections (scores are 0) or no annotations (scores are -1).

    -1 stands for "the ground truth has no such object", as in COCO. Every image of the ground truth counts,
    also those without detections; the order in which images come changes nothing. No argument is modified.

    Args:
        ground_truth: the content of an instances_*.json file.
        results: entries of COCO's results format (engine.tasks.coco_results); "bbox" scores their boxes, "segm"
            their masks, by whose areas small, medium and large are then told apart.
        kinds: "bbox", "segm" or both.
        scorer: "pycocotools" or "faster-coco-eval".

    Raises:
        ValueError: an unknown word, a scorer that is not installed, a detection of an unknown image or
            category, without a finite score, or whose box or mask is missing or does not fit the image.
    """
    _check_words(kinds, scorer)
    index, evaluation = _library(scorer)
    _check_results(ground_truth, results, kinds)
    if not ground_truth.get("annotations"):
        warn("the ground truth has no annotations: every COCO score is -1")
    elif not results:
        warn("there is not a single detection to score: every COCO score is 0")
    scores = {}
    for kind in kinds:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
            truth = _indexed(index, ground_truth, _truth_annotations(ground_truth))
            found = _indexed(index, ground_truth, _result_annotations(results, kind))
            scoring = evaluation(truth, found, kind)
            scoring.evaluate()
            scoring.accumulate()
            scoring.summarize()
        numbers = zip(METRICS, scoring.stats, strict=True)
        scores.update({f"{kind}_{name}": float(number) for name, number in numbers})
    return scores


def _check_words(kinds: Sequence[str], scorer: str) -> None:
    if not kinds or isinstance(kinds, str) or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds: expected one or both of {', '.join(KINDS)} in a tuple, got {kinds!r}")
    if scorer not in SCORERS:
        raise ValueError(f"scorer: expected one of {', '.join(SCORERS)}, got {scorer!r}")


def _library(scorer: str) -> tuple[Any, Any]:
    """Return a library's classes of an annotation file's index and of an evaluation."""
    if scorer == "pycocotools":
        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError as error:
        raise ValueError(
            "scorer: faster-coco-eval is not installed; `pip install faster-coco-eval`, or take "
            "scorer=pycocotools, which gives the same numbers"
        ) from error
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def _indexed(index: Any, ground_truth: Mapping[str, Any], annotations: list[dict[str, Any]]) -> Any:
    """Return annotations in a library's index; its own reader of results fails where there are none."""
    indexed = index()
    indexed.dataset = {
        "images": [dict(image) for image in ground_truth["images"]],
        "categories": [dict(category) for category in ground_truth["categories"]],
        "annotations": annotations,
    }
    indexed.createIndex()
    return indexed


def _truth_annotations(ground_truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations as copies, which the libraries may write into.

    They are numbered anew, from 1: to the libraries an object of id 0 is one that was not found.
    """
    annotations = ground_truth.get("annotations", [])
    return [
        {**annotation, "id": number, "iscrowd": annotation.get("iscrowd", 0)}
        for number, annotation in enumerate(annotations, 1)
    ]


def _result_annotations(results: Sequence[Entry], kind: str) -> list[dict[str, Any]]:
    """Return detections as the libraries' annotations, with the area of what is scored: box or mask."""
    annotations = []
    for number, entry in enumerate(results, 1):
        annotation = {name: entry[name] for name in ("image_id", "category_id", "score")}
        if kind == "bbox":
            box = entry["bbox"]
            annotation |= {"bbox": list(box), "area": box[2] * box[3]}
        else:
            mask = dict(entry["segmentation"])
            annotation |= {"segmentation": mask, "area": int(coco_mask.area(mask))}
        annotations.append(annotation | {"id": number, "iscrowd": 0})
    return annotations


def _check_results(ground_truth: Mapping[str, Any], results: Sequence[Entry], kinds: Sequence[str]) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for number, entry in enumerate(results):
        problem = _problem(entry, sizes, categories, kinds)
        if problem:
            raise ValueError(f"results: entry {number}, of image {entry['image_id']}: {problem}")


def _problem(
    entry: Entry, sizes: Mapping[int, list[int]], categories: set[int], kinds: Sequence[str]
) -> str | None:
    """Return in words what keeps a detection from being scored; the libraries would pass over most of it."""
    size = sizes.get(entry["image_id"])
    if size is None:
        return "the ground truth has no such image; score with the annotation file of the same split"
    if entry["category_id"] not in categories:
        return f"the ground truth has no category {entry['category_id']}; expected one of its category ids"
    if not math.isfinite(entry["score"]):
        return f"expected a finite score, got {entry['score']}; the detector has diverged"
    for kind, name in (("bbox", "bbox"), ("segm", "segmentation")):
        if kind in kinds and name not in entry:
            return f"it has no {name}, which kind {kind} needs; leave {kind} out of `kinds`"
    if "bbox" in kinds and not _is_box(entry["bbox"]):
        return f"expected bbox [x, y, width >= 0, height >= 0] of finite numbers, got {entry['bbox']}"
    if "segm" in kinds and list(entry["segmentation"]["size"]) != size:
        found = entry["segmentation"]["size"]
        return f"expected a mask of the image's size [height, width] {size}, got {list(found)}"
    return None


def _is_box(box: Sequence[float]) -> bool:
    return len(box) == 4 and all(map(math.isfinite, box)) and box[2] >= 0 and box[3] >= 0
