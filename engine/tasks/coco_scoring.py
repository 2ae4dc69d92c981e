"""Detections in COCO's results format, and COCO's scores of them: average precision and recall.

pycocotools is the reference. faster-coco-eval gives the same numbers in a fraction of the time, where it is
installed and asked for.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.data.coco.entries import has_area
from engine.data.coco.masks import encode_masks, run_lengths, with_area
from engine.records.console import warn
from pwlu.suggestion import expected_one_of

SCORERS = ("pycocotools", "faster-coco-eval")
# In the order of both libraries' `stats`; s, m, l: areas below 32**2, below 96**2 and above, in pixels;
# the number after AR: detections per image.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Entry = Mapping[str, Any]
Detections = Mapping[str, torch.Tensor]


def score(
    ground_truth: Mapping[str, Any],
    results: Sequence[Entry],
    kinds: Sequence[Literal["bbox", "segm"]] = ("bbox",),
    scorer: str = "pycocotools",
) -> dict[str, float]:
    """Return COCO's twelve numbers per kind, `bbox_AP` ... `segm_ARl`, from 0 to 1; -1: no such object.

    `ground_truth` is the content of an instances_*.json file, `results` what `coco_results` returns. Raises
    ValueError for an unknown or missing scorer and for a detection whose score or box is not finite.
    """
    index, evaluation = _library(scorer)
    _require_finite(results)
    if not ground_truth.get("annotations"):
        warn("the ground truth has no annotations: every COCO score is -1")
    elif not results:
        warn("there is not a single detection to score: every COCO score is 0")
    scores = {}
    for kind in kinds:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
            truth = _indexed(index, ground_truth, _truth_annotations(ground_truth, kind))
            found = _indexed(index, ground_truth, _result_annotations(results, kind))
            scoring = evaluation(truth, found, kind)
            scoring.evaluate()
            scoring.accumulate()
            scoring.summarize()
        numbers = zip(METRICS, scoring.stats, strict=True)
        scores.update({f"{kind}_{name}": float(number) for name, number in numbers})
    return scores


def _library(scorer: str) -> tuple[Any, Any]:
    if scorer not in SCORERS:
        raise ValueError(expected_one_of("scorer", scorer, SCORERS))
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
    # A library's own reader of results fails where there are none.
    indexed = index()
    indexed.dataset = {
        "images": _with_whole_numbers(ground_truth["images"]),
        "categories": _with_whole_numbers(ground_truth["categories"]),
        "annotations": annotations,
    }
    indexed.createIndex()
    return indexed


def _with_whole_numbers(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [{**entry, "id": int(entry["id"])} for entry in entries]


def _truth_annotations(ground_truth: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the annotations as the libraries need them, with iscrowd and area.

    An object without a mask is an ignored region, its box, in the scores of masks. Where there is no area it
    is that of what is scored, box or mask.
    """
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in ground_truth["images"]}
    complete = []
    # Copies, as the libraries write into them; numbered from 1, as to them an object of id 0 was not found.
    for number, annotation in enumerate(ground_truth.get("annotations", []), 1):
        entry = {**annotation, "id": number, "iscrowd": annotation.get("iscrowd") or 0}
        entry |= {key: int(annotation[key]) for key in ("image_id", "category_id")}
        x, y, width, height = annotation["bbox"]
        if kind == "segm":
            entry["segmentation"] = with_area(annotation.get("segmentation"))
            if entry["segmentation"] is None:
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                entry |= {"segmentation": [corners], "iscrowd": 1}
        if not has_area(annotation):
            mask = (
                run_lengths(entry["segmentation"], *sizes[annotation["image_id"]]) if kind == "segm" else None
            )
            entry["area"] = width * height if mask is None else int(coco_mask.area(mask))
        complete.append(entry)
    return complete


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


def _require_finite(results: Sequence[Entry]) -> None:
    # The libraries would ignore a detection that is not a number, or sort it anywhere.
    for entry in results:
        for name in ("score", "bbox"):
            if name in entry and not np.isfinite(entry[name]).all():
                raise ValueError(
                    f"a detection in image {entry['image_id']} has {name} {entry[name]}, expected finite "
                    "numbers; the detector has diverged"
                )


def coco_results(
    image_ids: Sequence[int], detections: Sequence[Detections], category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Return one entry per detection in COCO's results format, ready for JSON, in the order given.

    `detections` has for each image boxes float32 (n, 4) x1 y1 x2 y2 in pixels of the original image, scores
    float32 (n,), labels int64 (n,) and perhaps masks bool or uint8 (n, height, width), on any device.
    `category_ids` has the id in the ground truth of every label 0 .. K - 1. Detections of a label without one
    are left out: they have no part in the scores.
    """
    entries = []
    for image_id, found in zip(image_ids, detections, strict=True):
        entries += _entries(int(image_id), found, category_ids)
    return entries


def _entries(image_id: int, found: Detections, category_ids: Sequence[int | None]) -> list[dict[str, Any]]:
    # In float64, so that the float32 corners can be computed back to the bit.
    corners = found["boxes"].detach().cpu().double()
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    entries: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(boxes, found["scores"].tolist(), found["labels"].tolist(), strict=True)
    ]
    if "masks" in found:
        masks = found["masks"].detach().cpu().numpy()
        for entry, segmentation in zip(entries, encode_masks(masks), strict=True):
            entry["segmentation"] = segmentation
    return [entry for entry in entries if entry["category_id"] is not None]
