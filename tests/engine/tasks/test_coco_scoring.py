import copy
import importlib.util
import json
import os
import random
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.data.coco.masks import encode_masks
from engine.tasks.coco_scoring import METRICS, coco_results, score

HAS_FASTER = importlib.util.find_spec("faster_coco_eval") is not None
needs_faster = pytest.mark.skipif(not HAS_FASTER, reason="faster-coco-eval is not installed")
needs_data = pytest.mark.skipif("PWLU_DATA" not in os.environ, reason="PWLU_DATA names no folder of data")
each_scorer = pytest.mark.parametrize(
    "scorer", ["pycocotools", pytest.param("faster-coco-eval", marks=needs_faster)]
)
each_kind = pytest.mark.parametrize("kind", ["bbox", "segm"])
SIZE = (200, 300)  # height, width of the images

Box = tuple[int, int, int, int]  # x y width height


def rectangle(box: Box) -> dict[str, Any]:
    """The mask of a box."""
    x, y, width, height = box
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    return encode_masks(mask[None])[0]


def truth(objects: list[tuple[int, int, Box]], num_images: int = 2, crowds: tuple[int, ...] = ()) -> dict:
    """An annotation file of (image, category, box), of which some numbers are crowds."""
    annotations = [
        {
            "id": number + 1,
            "image_id": image,
            "category_id": category,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": int(number in crowds),
            "segmentation": rectangle(box),
        }
        for number, (image, category, box) in enumerate(objects)
    ]
    images = [{"id": number + 1, "height": SIZE[0], "width": SIZE[1]} for number in range(num_images)]
    categories = [{"id": number, "name": str(number)} for number in (4, 7, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}


def found(image: int, category: int, box: Box, sure: float) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(map(float, box)),
        "score": sure,
        "segmentation": rectangle(box),
    }


# One object per image. The surest detection is exact, the next one wrong, the last one has IoU 0.72.
BY_HAND = truth([(1, 7, (10, 20, 100, 100)), (2, 7, (50, 60, 100, 100))])
BY_HAND_FOUND = [
    found(1, 7, (10, 20, 100, 100), 0.9),
    found(2, 7, (170, 60, 100, 100), 0.8),
    found(2, 7, (50, 60, 72, 100), 0.7),
]


def random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of all sizes with crowds, and detections near them with many equal scores."""
    draw = random.Random(seed)

    def box() -> Box:
        width, height = draw.randint(5, 180), draw.randint(5, 150)
        return draw.randint(0, 300 - width), draw.randint(0, 200 - height), width, height

    objects = [(draw.randint(1, 12), draw.choice((4, 7, 9)), box()) for _ in range(40)]
    results = []
    for image, category, (x, y, width, height) in objects * 2:
        smaller = (x, y, max(1, width - draw.randint(0, 20)), max(1, height - draw.randint(0, 20)))
        category = category if draw.random() < 0.9 else 4
        mask = (x, y, smaller[2], max(1, smaller[3] - draw.randint(0, 20)))
        entry = found(image, category, smaller, draw.choice((0.2, 0.5, 0.5, 0.9)))
        results.append(entry | {"segmentation": rectangle(mask)})
    return truth(objects, num_images=12, crowds=(3, 17)), results


@each_scorer
@each_kind
def test_scores_are_those_worked_out_by_hand(kind: str, scorer: str) -> None:
    scores = score(BY_HAND, BY_HAND_FOUND, (kind,), scorer)
    # Precision is 1 up to a recall of one half (51 of the 101 points), then 2 / 3; above IoU 0.7 nothing.
    loose, strict = (51 + 50 * 2 / 3) / 101, 51 / 101
    mean = (5 * loose + 5 * strict) / 10  # IoU 0.50, 0.55 ... 0.70 and 0.75 ... 0.95
    recall = (5 * 1 + 5 * 0.5) / 10
    expected = {"AP": mean, "AP50": loose, "AP75": strict, "APs": -1, "APm": -1, "APl": mean}
    expected |= {"AR1": 0.5, "AR10": recall, "AR100": recall, "ARs": -1, "ARm": -1, "ARl": recall}
    assert scores == pytest.approx({f"{kind}_{name}": value for name, value in expected.items()}, abs=1e-12)


@needs_data
@each_scorer
@each_kind
def test_scores_of_cocos_example_detections_are_the_published_ones(kind: str, scorer: str) -> None:
    folder = Path(os.environ["PWLU_DATA"]) / "coco_eval_ref"
    ground_truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["stats"][kind]
    scores = score(ground_truth, results, (kind,), scorer)
    assert scores == pytest.approx({f"{kind}_{name}": expected[name] for name in METRICS}, rel=0, abs=1e-12)


@needs_faster
def test_both_scorers_agree() -> None:
    ground_truth, results = random_case(0)
    reference = score(ground_truth, results, ("bbox", "segm"))
    assert 0.1 < reference["bbox_AP"] < 0.9 and reference["segm_AP"] != reference["bbox_AP"]
    assert score(ground_truth, results, ("bbox", "segm"), "faster-coco-eval") == pytest.approx(
        reference, rel=0, abs=1e-12
    )


@each_scorer
def test_masks_are_small_or_large_by_their_own_area(scorer: str) -> None:
    """COCO's own reader takes the box's area where an entry has both, and would pass over the wrong one."""
    ground_truth = truth([(1, 7, (0, 0, 20, 20))])
    frame = np.zeros(SIZE, bool)
    frame[100:160, 100] = frame[100, 100:160] = True  # 119 pixels in a box of 3600
    wrong = found(1, 7, (100, 100, 60, 60), 0.9) | {"segmentation": encode_masks(frame[None])[0]}
    scores = score(ground_truth, [wrong, found(1, 7, (0, 0, 20, 20), 0.8)], ("bbox", "segm"), scorer)
    assert scores["segm_APs"] == pytest.approx(0.5) and scores["bbox_APs"] == pytest.approx(1.0)


@each_scorer
def test_crowds_are_nothing_to_find_and_nothing_wrong_to_find(scorer: str) -> None:
    ground_truth = truth([(1, 7, (0, 0, 50, 50)), (1, 7, (100, 0, 100, 100))], crowds=(1,))
    results = [found(1, 7, (100, 0, 60, 60), 0.9), found(1, 7, (0, 0, 50, 50), 0.8)]
    assert score(ground_truth, results, ("bbox", "segm"), scorer)["segm_AP"] == pytest.approx(1.0)
    assert score(truth([(1, 7, (0, 0, 50, 50))]), results, scorer=scorer)["bbox_AP"] == pytest.approx(0.5)


@each_scorer
def test_an_object_of_id_0_can_be_found(scorer: str) -> None:
    ground_truth = truth([(1, 7, (0, 0, 50, 50))])
    ground_truth["annotations"][0]["id"] = 0
    assert score(ground_truth, [found(1, 7, (0, 0, 50, 50), 0.5)], scorer=scorer)["bbox_AP"] > 0.999


def stripped(ground_truth: dict[str, Any], *keys: str, **values: Any) -> dict[str, Any]:
    """Return the file without these keys in its annotations, and with these values."""
    entries = [
        {key: value for key, value in entry.items() if key not in keys} | values
        for entry in ground_truth["annotations"]
    ]
    return ground_truth | {"annotations": entries}


@each_scorer
def test_what_a_file_of_another_program_lacks_changes_no_score(scorer: str) -> None:
    ground_truth, results = random_case(3)
    for entry in ground_truth["annotations"]:
        entry["iscrowd"] = 0
    # The second way: the file as pycocotools wants it, scored by pycocotools alone.
    expected = reference_scores(ground_truth, results)
    assert (
        reference_scores(ground_truth | {"annotations": with_ids_from(0, ground_truth)}, results) != expected
    )
    variants = {
        "ids from 0": ground_truth | {"annotations": with_ids_from(0, ground_truth)},
        "one id": stripped(ground_truth, id=0),
        "no ids": stripped(ground_truth, "id"),
        "no iscrowd": stripped(ground_truth, "iscrowd"),
        "iscrowd null": stripped(ground_truth, iscrowd=None),
        "no area": stripped(ground_truth, "area"),
        "area 0": stripped(ground_truth, area=0),
        "floats": ground_truth
        | {
            "images": [image | {"id": float(image["id"])} for image in ground_truth["images"]],
            "annotations": [
                entry | {key: float(entry[key]) for key in ("id", "image_id", "category_id", "iscrowd")}
                for entry in ground_truth["annotations"]
            ],
        },
    }
    for name, variant in variants.items():
        before = copy.deepcopy(variant)
        found = score(variant, results, ("bbox", "segm"), scorer)
        assert found == pytest.approx(expected, rel=0, abs=1e-12), name
        assert variant == before


def with_ids_from(first: int, ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry | {"id": number} for number, entry in enumerate(ground_truth["annotations"], first)]


def reference_scores(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """Return COCO's numbers as its own program computes them: its reader, its loader of results."""
    scores = {}
    for kind in ("bbox", "segm"):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth) | {"info": {}, "licenses": []}
        truth.createIndex()
        keys = {"image_id", "category_id", "score", {"segm": "segmentation"}.get(kind, kind)}
        found = truth.loadRes([{key: copy.deepcopy(entry[key]) for key in keys} for entry in results])
        scoring = COCOeval(truth, found, kind)
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
        scores |= {f"{kind}_{name}": number for name, number in zip(METRICS, scoring.stats, strict=True)}
    return scores


@each_scorer
@pytest.mark.parametrize("segmentation", [None, [], [[1, 2, 3, 4]]], ids=["none", "empty", "a line"])
def test_an_object_without_a_mask_is_scored_by_its_box_alone(scorer: str, segmentation: Any) -> None:
    ground_truth = truth([(1, 7, (0, 0, 50, 50)), (1, 7, (100, 0, 100, 100))])
    ground_truth["annotations"][1]["segmentation"] = segmentation
    results = [found(1, 7, (100, 0, 90, 90), 0.9), found(1, 7, (0, 0, 50, 50), 0.8)]
    scores = score(ground_truth, results, ("bbox", "segm"), scorer)
    # What is found there is neither right nor wrong as a mask; as a box it counts.
    assert scores["segm_AP"] == pytest.approx(1.0) and scores["segm_AR10"] == pytest.approx(1.0)
    assert 0.5 < scores["bbox_AP"] < 1 and scores["bbox_APl"] > 0


def test_an_area_that_is_not_given_is_that_of_what_is_scored() -> None:
    ground_truth = truth([(1, 7, (0, 0, 100, 100))])
    ground_truth["annotations"][0]["segmentation"] = [[0, 0, 100, 0, 100, 10, 0, 10]]
    del ground_truth["annotations"][0]["area"]
    scores = score(ground_truth, [found(1, 7, (0, 0, 100, 10), 0.5)], ("bbox", "segm"))
    assert scores["segm_APs"] == pytest.approx(1.0) and scores["segm_APl"] == -1
    assert scores["bbox_APl"] == 0 and scores["bbox_APm"] == -1


@each_scorer
def test_without_detections_scores_are_0_with_one_warning(
    scorer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        scores = score(BY_HAND, [], ("bbox", "segm"), scorer)
        for kind in ("bbox", "segm"):
            values = [scores[f"{kind}_{name}"] for name in METRICS]
            assert values == [0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1, 0]
        captured = capsys.readouterr()
        assert captured.err == "" and captured.out.count("\n") == 1
        assert captured.out.startswith("WARNING: there is not a single detection to score")


@each_scorer
@pytest.mark.parametrize("results", [[], BY_HAND_FOUND], ids=["nothing found", "something found"])
def test_without_annotations_scores_are_minus_1_with_one_warning(
    scorer: str, results: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    scores = score(truth([]), results, ("bbox", "segm"), scorer)
    assert set(scores.values()) == {-1.0} and len(scores) == 24
    assert capsys.readouterr().out == "WARNING: the ground truth has no annotations: every COCO score is -1\n"


@each_scorer
def test_nothing_is_printed_and_no_argument_modified(scorer: str, capsys: pytest.CaptureFixture[str]) -> None:
    ground_truth, results = random_case(2)
    ground_truth["annotations"][0]["segmentation"] = [[0, 0, 50, 0, 50, 50]]
    before = copy.deepcopy((ground_truth, results))
    scores = score(ground_truth, results, ("bbox", "segm"), scorer)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (ground_truth, results) == before
    assert list(scores) == [f"{kind}_{name}" for kind in ("bbox", "segm") for name in METRICS]
    assert {type(value) for value in scores.values()} == {float}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": float("nan")}, "a detection in image 2 has score nan, .*; the detector has diverged"),
        ({"score": float("inf")}, "score inf"),
        ({"bbox": [0, float("nan"), 1, 5]}, r"bbox \[0, nan, 1, 5\], expected finite numbers"),
    ],
)
def test_a_diverged_detector_is_not_scored(change: dict[str, Any], sentence: str) -> None:
    results = [BY_HAND_FOUND[0], BY_HAND_FOUND[1] | change]
    with pytest.raises(ValueError, match=sentence):
        score(BY_HAND, results, ("bbox", "segm"))


def test_an_unknown_scorer_is_refused() -> None:
    with pytest.raises(ValueError, match="scorer is 'coco', expected one of pycocotools, faster-coco-eval"):
        score(BY_HAND, [], scorer="coco")


def test_a_scorer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match="`pip install faster-coco-eval`, or take scorer=pycocotools"):
        score(BY_HAND, BY_HAND_FOUND, scorer="faster-coco-eval")


CATEGORY_IDS = [1, 18, 90]


def random_detections(
    count: int, seed: int = 0, size: tuple[int, int] | None = None
) -> dict[str, torch.Tensor]:
    """Detections with corners of very different magnitudes, which float32 differences would spoil."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = 10.0 ** torch.randint(-6, 4, (count, 2, 2), generator=generator)
    corners = (torch.rand(count, 2, 2, generator=generator) * magnitudes).sort(dim=1).values.flatten(1)
    detections = {
        "boxes": corners,
        "scores": torch.rand(count, generator=generator),
        "labels": torch.randint(3, (count,), generator=generator),
    }
    if size is not None:
        detections["masks"] = torch.rand(count, *size, generator=generator) < 0.5
    return detections


def test_what_a_file_of_results_holds_gives_back_the_detections_to_the_bit() -> None:
    detections = random_detections(200, size=(7, 11))
    entries = json.loads(json.dumps(coco_results([42], [detections], CATEGORY_IDS)))
    corners = np.array([entry["bbox"] for entry in entries])
    corners[:, 2:] += corners[:, :2]
    assert torch.equal(torch.from_numpy(corners).float(), detections["boxes"])
    scores = torch.tensor([entry["score"] for entry in entries], dtype=torch.float64)
    assert torch.equal(scores, detections["scores"].double())
    labels = [CATEGORY_IDS.index(entry["category_id"]) for entry in entries]
    assert labels == detections["labels"].tolist()
    masks = np.stack([coco_mask.decode(entry["segmentation"]) for entry in entries])
    assert np.array_equal(masks.astype(bool), detections["masks"].numpy())
    assert all(entry["segmentation"]["size"] == [7, 11] for entry in entries)


def test_entries_come_in_the_order_of_images_and_detections() -> None:
    detections = [random_detections(2, seed=1), random_detections(0), random_detections(3, seed=2)]
    entries = coco_results(np.array([7, 3, 5]), detections, np.array(CATEGORY_IDS))
    assert [entry["image_id"] for entry in entries] == [7, 7, 5, 5, 5]
    scores = torch.cat([detections[0]["scores"], detections[2]["scores"]])
    assert [entry["score"] for entry in entries] == scores.tolist()
    assert all(entry.keys() == {"image_id", "category_id", "bbox", "score"} for entry in entries)


def test_no_detections_give_no_entries() -> None:
    assert coco_results([], [], CATEGORY_IDS) == []
    assert coco_results([1], [random_detections(0, size=(4, 5))], CATEGORY_IDS) == []


def test_detections_of_a_category_that_the_ground_truth_lacks_are_left_out() -> None:
    detections = random_detections(20, size=(4, 5))
    whole = coco_results([1], [detections], CATEGORY_IDS)
    lacking = coco_results([1], [detections], [CATEGORY_IDS[0], None, CATEGORY_IDS[2]])
    assert lacking == [entry for entry in whole if entry["category_id"] != CATEGORY_IDS[1]]
    assert 0 < len(lacking) < 20


def test_every_value_but_0_is_in_the_mask() -> None:
    masks = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    (entry,) = coco_results([1], [random_detections(1) | {"masks": masks}], CATEGORY_IDS)
    assert coco_mask.decode(entry["segmentation"]).tolist() == [[0, 1], [1, 1]]


def test_large_masks_are_not_copied_all_at_once() -> None:
    detections = random_detections(60)
    detections["masks"] = torch.zeros(60, 300, 400, dtype=torch.bool)
    detections["masks"][:, 50:150, 70:90] = True
    tracemalloc.start()
    coco_results([1], [detections], CATEGORY_IDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 300 * 400
