"""Object keypoint similarity (OKS), COCO's measure: average precision and recall by faster-coco-eval.

A prediction counts by how likely its points are under the spread of labels, the skeleton's sigmas, at the subject's
size. Results are COCO's list of {"image_id", "category_id", "keypoints", "score"}, in which pixel j's centre has
coordinate j. Kinds with the same points are scored as one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fasthg.data.coco import (
    as_id,
    begins_with,
    choose_categories,
    image_names,
    is_coco_file,
    is_crowd,
    kinds_of,
    labelled_annotations,
    listed_name,
    load_coco,
    point_order,
    read_coco,
)
from fasthg.data.dataset import Dataset
from fasthg.data.people import HALF_PIXEL, load_json
from fasthg.data.reading import Reading, boxes_or_around
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import Skeleton

if TYPE_CHECKING:
    from rich.table import Table

#: What faster-coco-eval's summary holds, in its order.
NAMES = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


#: Of a box that its subject covers, where a file gives no areas, as CrowdPose: faster-coco-eval's own share for it.
COVERED = 0.53


def oks(
    truth: Path,
    results: list[dict[str, Any]],
    skeleton: Skeleton,
    images: Sequence[str] | None = None,
    category: str | None = None,
) -> dict[str, float]:
    """Average precision and recall, in percent, of COCO results against a file of COCO's keypoints; see NAMES.

    images    file names of the images that count; None for all of the file
    category  name or number of the subjects that count, where the file has several kinds; results of others do not

    -100 stands for what no subject decides. Raises FasthgError for a skeleton without sigmas and for results that are
    of other images or kinds or have other points.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if not skeleton.sigmas:
        raise FasthgError(f"OKS is not defined for {skeleton}: nobody publishes its sigmas; score by PCK or RMSE")
    document = load_coco(truth)
    chosen, names = choose_categories(truth, document, category), image_names(truth, document)
    _check(results, names.keys(), len(skeleton))
    keys = {name: key for key, name in names.items()}
    numbers = {key: i for i, key in enumerate(sorted(names, key=_by_number), start=1)}
    counted = names if images is None else {keys[listed_name(keys, name)] for name in images}
    if not results:
        return dict.fromkeys(NAMES, 0.0)
    sigmas = np.empty(len(skeleton))
    sigmas[point_order(truth, document, chosen, skeleton.names)] = skeleton.sigmas
    annotations = COCO(_truth(truth, document, chosen, len(skeleton), numbers))
    evaluation = COCOeval_faster(
        annotations, annotations.loadRes(_of_kinds(results, chosen, numbers)), "keypoints", kpt_oks_sigmas=list(sigmas)
    )
    evaluation.params.imgIds = sorted(numbers[key] for key in counted)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: 100.0 * float(value) for name, value in zip(NAMES, evaluation.stats)}


def _by_number(key: str | None) -> tuple[int, str]:
    """Orders whole numbers that are written as text, as which COCO's own evaluation breaks ties."""
    return len(str(key)), str(key)


def _truth(
    path: Path, document: dict[str, Any], chosen: list[dict[str, Any]], count: int, numbers: dict[str | None, int]
) -> dict[str, Any]:
    """What faster-coco-eval needs of a file: one kind, annotations from 1 on, and all that tools leave out.

    A subject without a box has the reader's, one without an area what subjects cover of their box; who has neither
    points nor a box is left out. Whoever is found in a box without points counts neither for nor against.
    """
    found = list(labelled_annotations(path, document, chosen, count, boxes_alone=True))
    points = np.array([points for _annotation, _key, points, _box in found]).reshape(-1, count, 3)
    labelled = (points[..., 2] > 0) & np.isfinite(points).all(-1)
    points = np.where(labelled[..., None], points, 0.0)
    boxes = boxes_or_around(np.array([box for *_others, box in found]).reshape(-1, 4), points[..., :2], labelled)
    annotations = [
        {
            "id": row + 1,
            "image_id": numbers[key],
            "category_id": 1,
            "keypoints": points[row].ravel().tolist(),
            "num_keypoints": int(labelled[row].sum()),
            "bbox": boxes[row].tolist(),
            "area": _area(annotation) or COVERED * float(boxes[row, 2] * boxes[row, 3]),
            "iscrowd": int(is_crowd(annotation)),
        }
        for row, (annotation, key, *_others) in enumerate(found)
        if np.isfinite(boxes[row]).all()
    ]
    return {
        "images": [{"id": number} for number in numbers.values()],
        "annotations": annotations,
        "categories": [{"id": 1}],
    }


def _area(annotation: dict[str, Any]) -> float | None:
    """An annotation's own area in square pixels; None where it has none."""
    try:
        area = float(annotation["area"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return area if 0 < area < np.inf else None


def _of_kinds(
    results: list[dict[str, Any]], chosen: list[dict[str, Any]], numbers: dict[str | None, int]
) -> list[dict[str, Any]]:
    """The results of some kinds under the numbers of `_truth`; raises FasthgError where there are none."""
    kinds = kinds_of(chosen)
    fields = ("keypoints", "score", "bbox") if all(result.get("bbox") for result in results) else ("keypoints", "score")
    ours = [
        {"image_id": numbers[as_id(result["image_id"])], "category_id": 1} | {name: result[name] for name in fields}
        for result in results
        if as_id(result["category_id"]) in kinds
    ]
    if not ours:
        names = ", ".join(f"{kind.get('name')} ({kind.get('id')})" for kind in chosen)
        raise FasthgError(f"none of the {len(results)} results is of category {names}; choose one with --category")
    return ours


def coco_results(
    truth: Path,
    images: Sequence[str],
    joints: ArrayLike,
    scores: ArrayLike,
    box_scores: ArrayLike | None = None,
    category: str | None = None,
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """COCO's list of results of joints [N, J, 2] in continuous pixels and scores [N, J] of a file's images.

    box_scores  [N], of detections; a result's score is its box's times its points' mean
    names       of the J points, which results have in the file's order; None where they are in it
    """
    document = load_coco(truth)
    written = {as_id(image["id"]): image["id"] for image in document["images"]}
    ids = {name: written[key] for key, name in image_names(truth, document).items()}
    chosen = choose_categories(truth, document, category)
    kind = chosen[0]["id"]
    joints, scores = np.asarray(joints, np.float64), np.asarray(scores, np.float64)
    whole = scores.mean(axis=1) * (1.0 if box_scores is None else np.asarray(box_scores, np.float64))
    points = np.concatenate([joints - HALF_PIXEL, scores[..., None]], axis=-1)
    if names is not None:
        points[:, point_order(truth, document, chosen, names)] = points.copy()
    flat = points.reshape(len(joints), -1).round(4)
    return [
        {
            "image_id": ids[listed_name(ids, name)],
            "category_id": kind,
            "keypoints": values.tolist(),
            "score": round(float(score), 6),
        }
        for name, values, score in zip(images, flat, whole)
    ]


def results_of_dataset(
    dataset: Dataset, joints: ArrayLike, scores: ArrayLike, box_scores: ArrayLike | None, category: str | None
) -> list[dict[str, Any]]:
    """`coco_results` of the people of a dataset that is read from a file of COCO's keypoints."""
    people = dataset.people
    return coco_results(dataset.annotations, people.images, joints, scores, box_scores, category, people.skeleton.names)


def oks_of_dataset(dataset: Dataset, results: list[dict[str, Any]], category: str | None) -> dict[str, float] | None:
    """`oks` of the images of a dataset and its category; None for a skeleton without sigmas."""
    people = dataset.people
    known = bool(people.skeleton.sigmas)
    return oks(dataset.annotations, results, people.skeleton, people.images, category) if known else None


def is_results(path: Path) -> bool:
    """Whether a file is COCO's list of results."""
    if path.suffix != ".json" or not path.is_file() or not begins_with(path, b"["):
        return False
    first = next(iter(read_results(path)), {})
    return {"image_id", "keypoints"} <= first.keys()


def score_results(results: Path, truth: Path, reading: Reading) -> dict[str, float]:
    """`oks` of a file of COCO's results against one of COCO's keypoints."""
    if not is_coco_file(truth):
        raise FasthgError(f"truth {truth} is no file of COCO's keypoints, which results are scored against")
    skeleton = read_coco(truth, reading).people.skeleton
    return oks(truth, read_results(results), skeleton, category=reading.category)


def oks_table(values: dict[str, float]) -> Table:
    """OKS figures in one row."""
    from rich.table import Table

    table = Table(title="OKS, averaged over thresholds 0.50 to 0.95", caption="COCO's keypoint evaluation, percent")
    for name in values:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.2f}" if value >= 0 else "-" for value in values.values()))
    return table


def read_results(path: Path) -> list[dict[str, Any]]:
    """COCO's list of results of a file; raises FasthgError for anything else."""
    results = load_json(path)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise FasthgError(f"{path}: no list of results; give COCO's, with image_id, keypoints and score")
    return results


def _check(results: list[dict[str, Any]], known: Collection[str | None], count: int) -> None:
    for i, result in enumerate(results):
        if missing := [name for name in ("image_id", "category_id", "keypoints", "score") if name not in result]:
            raise FasthgError(f"results[{i}] has no {missing[0]}; give COCO's results")
        for name in ("image_id", "category_id", "score"):
            if not isinstance(result[name], (int, float) if name == "score" else (int, float, str)):
                raise FasthgError(f"results[{i}]: {name} is {result[name]!r:.60}; give COCO's results")
        if as_id(result["image_id"]) not in known:
            raise FasthgError(f"results[{i}] is of image {result['image_id']!r}, which the truth does not list")
        if not math.isfinite(result["score"]):
            raise FasthgError(f"results[{i}]: score is {result['score']}; give a finite number")
        box = result.get("bbox", [])  # as pycocotools takes one that is left out
        if (
            not isinstance(box, list)
            or len(box) not in (0, 4)
            or not all(isinstance(side, (int, float)) for side in box)
        ):
            raise FasthgError(f"results[{i}]: bbox is {box!r:.60}; give x, y, w, h, or leave it out")
        points = result["keypoints"]
        if not isinstance(points, list) or not all(isinstance(value, (int, float)) for value in points):
            raise FasthgError(f"results[{i}]: keypoints is {points!r:.60}; give x, y and score of each point")
        if len(points) != 3 * count:
            raise FasthgError(f"results[{i}] has {len(points)} numbers, {count} points have {3 * count}")
