"""Object keypoint similarity (OKS), COCO's measure: average precision and recall by faster-coco-eval.

A prediction counts by how likely its points are under the spread of labels, the skeleton's sigmas, at the subject's
size. Results are COCO's list of {"image_id", "category_id", "keypoints", "score"}, in which pixel j's centre has
coordinate j.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fasthg.data.coco import choose_categories, image_name, is_coco_file, listed_name, read_coco
from fasthg.data.dataset import Dataset
from fasthg.data.people import HALF_PIXEL, load_json
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import Skeleton

if TYPE_CHECKING:
    from rich.table import Table

#: What faster-coco-eval's summary holds, in its order.
NAMES = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


def oks(
    truth: Path, results: list[dict[str, Any]], skeleton: Skeleton, images: Sequence[str] | None = None
) -> dict[str, float]:
    """Average precision and recall, in percent, of COCO results against a file of COCO's keypoints; see NAMES.

    images  file names of the images that count; None for all of the file

    -100 stands for what no subject decides. Raises FasthgError for a skeleton without sigmas and for results that are
    of other images or have other points.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if not skeleton.sigmas:
        raise FasthgError(f"OKS is not defined for {skeleton}: nobody publishes its sigmas; score by PCK or RMSE")
    document = load_json(truth)
    ids = {image_name(image): image["id"] for image in document["images"]}
    _check(results, set(ids.values()), len(skeleton))
    chosen = sorted(ids.values()) if images is None else sorted({ids[listed_name(ids, name)] for name in images})
    if not results:
        return dict.fromkeys(NAMES, 0.0)
    annotations = COCO(document)
    evaluation = COCOeval_faster(
        annotations, annotations.loadRes(results), "keypoints", kpt_oks_sigmas=list(skeleton.sigmas)
    )
    evaluation.params.imgIds = chosen
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: 100.0 * float(value) for name, value in zip(NAMES, evaluation.stats)}


def coco_results(
    truth: Path,
    images: Sequence[str],
    joints: ArrayLike,
    scores: ArrayLike,
    box_scores: ArrayLike | None = None,
    category: str | None = None,
) -> list[dict[str, Any]]:
    """COCO's list of results of joints [N, J, 2] in continuous pixels and scores [N, J] of a file's images.

    box_scores  [N], of detections; a result's score is its box's times its points' mean
    """
    document = load_json(truth)
    ids = {image_name(image): image["id"] for image in document["images"]}
    kind = choose_categories(truth, document, category)[0]["id"]
    joints, scores = np.asarray(joints, np.float64), np.asarray(scores, np.float64)
    whole = scores.mean(axis=1) * (1.0 if box_scores is None else np.asarray(box_scores, np.float64))
    flat = np.concatenate([joints - HALF_PIXEL, scores[..., None]], axis=-1).reshape(len(joints), -1).round(4)
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
    return coco_results(dataset.annotations, dataset.people.images, joints, scores, box_scores, category)


def oks_of_dataset(dataset: Dataset, results: list[dict[str, Any]]) -> dict[str, float] | None:
    """`oks` of the images of a dataset; None for a skeleton without sigmas."""
    skeleton = dataset.people.skeleton
    return oks(dataset.annotations, results, skeleton, dataset.people.images) if skeleton.sigmas else None


def is_results(path: Path) -> bool:
    """Whether a file is COCO's list of results."""
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"["):
            return False
    first = next(iter(read_results(path)), {})
    return {"image_id", "keypoints"} <= first.keys()


def score_results(results: Path, truth: Path, reading: Reading) -> dict[str, float]:
    """`oks` of a file of COCO's results against one of COCO's keypoints."""
    if not is_coco_file(truth):
        raise FasthgError(f"truth {truth} is no file of COCO's keypoints, which results are scored against")
    return oks(truth, read_results(results), read_coco(truth, reading).people.skeleton)


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


def _check(results: list[dict[str, Any]], known: set[Any], count: int) -> None:
    for i, result in enumerate(results):
        if missing := [name for name in ("image_id", "category_id", "keypoints", "score") if name not in result]:
            raise FasthgError(f"results[{i}] has no {missing[0]}; give COCO's results")
        for name in ("image_id", "category_id", "score"):
            if not isinstance(result[name], (int, float) if name == "score" else (int, float, str)):
                raise FasthgError(f"results[{i}]: {name} is {result[name]!r:.60}; give COCO's results")
        if result["image_id"] not in known:
            raise FasthgError(f"results[{i}] is of image {result['image_id']!r}, which the truth does not list")
        points = result["keypoints"]
        if not isinstance(points, list) or not all(isinstance(value, (int, float)) for value in points):
            raise FasthgError(f"results[{i}]: keypoints is {points!r:.60}; give x, y and score of each point")
        if len(points) != 3 * count:
            raise FasthgError(f"results[{i}] has {len(points)} numbers, {count} points have {3 * count}")
