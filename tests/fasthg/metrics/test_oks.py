"""OKS by faster-coco-eval is that of pycocotools' own call, for perfect, shifted and real predictions."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasthg.cli.app import main
from fasthg.data.coco import listed_name
from fasthg.data.dataset import load_dataset
from fasthg.data.detections import at_detections
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.metrics.evaluate import EvalOptions, predict_dataset
from fasthg.metrics.oks import NAMES, coco_results, oks, oks_of_dataset, results_of_dataset
from fasthg.network.checkpoint import save
from fasthg.network.load import load_network
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import COCO, MPII

pytest.importorskip("faster_coco_eval")


def by_pycocotools(truth: Path, results: list[dict[str, Any]]) -> dict[str, float]:
    api = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        annotations = api.COCO(str(truth))
        evaluation = COCOeval(annotations, annotations.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100.0 * float(value) for name, value in zip(NAMES, evaluation.stats)}


def perfect(truth: Path, shift: float = 0.0) -> list[dict[str, Any]]:
    """The truth itself as results, its points moved by up to `shift` pixels to either side, in shuffled order."""
    rng, results = np.random.default_rng(3), []
    for annotation in json.loads(truth.read_text())["annotations"]:
        points = np.array(annotation["keypoints"], float).reshape(-1, 3)
        if not points[:, 2].any():
            continue
        points[:, :2] += shift * rng.uniform(-1, 1, points[:, :2].shape)
        where = {name: annotation[name] for name in ("image_id", "category_id")}
        results.append({**where, "keypoints": points.ravel().tolist(), "score": float(rng.uniform(0.2, 1))})
    return results


@pytest.fixture(scope="module")
def truth(keypoints: Path) -> Path:
    return keypoints / "coco" / "test_coco.json"


@pytest.mark.parametrize("shift", [0.0, 2.0, 8.0, 20.0])
def test_the_figures_are_pycocotools_own(truth: Path, shift: float) -> None:
    results = perfect(truth, shift)
    found, expected = oks(truth, results, COCO), by_pycocotools(truth, results)
    assert found == pytest.approx(expected, abs=1e-6)
    assert (found["AP"] == pytest.approx(100)) == (shift == 0)


@pytest.fixture(scope="module")
def poses(truth: Path) -> list[dict[str, Any]]:
    """Real answers in the detected boxes: those of the shipped network, whose joints are put in COCO's places."""
    dataset, box_scores = at_detections(
        load_dataset(truth, "all"), truth.with_name("test_coco_det_AP_H_56.json"), None, pytest.fail
    )
    best = np.argsort(-box_scores)[:16]
    net = load_network()
    as_mpii = replace(dataset, people=replace(dataset.people, skeleton=MPII))
    joints, scores = predict_dataset(net.final, as_mpii, best.tolist(), EvalOptions(mean=net.config.mean))
    sides = {"wri": "wrist", "elb": "elbow", "sho": "shoulder", "hip": "hip", "kne": "knee", "ank": "ankle"}
    ours = {
        name: f"{'right' if name[0] == 'r' else 'left'}_{sides[name[1:]]}" for name in MPII.names if name[1:] in sides
    }
    places = {COCO.names.index(theirs): MPII.names.index(name) for name, theirs in ours.items()}
    order = [places.get(point, MPII.names.index("head")) for point in range(len(COCO))]
    images = [dataset.people.images[row] for row in best]
    return coco_results(truth, images, joints[:, order], scores[:, order], box_scores[best])


def test_real_answers_in_detected_boxes_score_as_in_pycocotools(truth: Path, poses: list[dict[str, Any]]) -> None:
    found = oks(truth, poses, COCO)
    assert found == pytest.approx(by_pycocotools(truth, poses), abs=1e-6)
    assert len({result["image_id"] for result in poses}) > 1


def test_results_go_out_and_in_by_the_command_line(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(perfect(truth, 8.0)))
    assert main(["score", str(tmp_path / "results.json"), "--truth", str(truth), "--json"]) == 0
    expected = by_pycocotools(truth, perfect(truth, 8.0))
    assert json.loads(capsys.readouterr().out)["oks"] == pytest.approx(expected, abs=1e-6)


def test_results_of_the_true_points_are_perfect(truth: Path) -> None:
    """Half a pixel is taken off and put on again; a subject's points come back where its file has them."""
    dataset = load_dataset(truth, "all")
    people = dataset.people
    joints = np.nan_to_num(people.joints)
    results = coco_results(truth, people.images, joints, people.labelled.astype(float))
    assert (oks_of_dataset(dataset, results, None) or {})["AP"] == pytest.approx(100)
    first = next(a for a in json.loads(truth.read_text())["annotations"] if any(a["keypoints"]))
    assert results[0]["keypoints"][:2] == first["keypoints"][:2]


def test_what_cannot_be_scored_is_named(truth: Path) -> None:
    with pytest.raises(FasthgError, match=r"OKS is not defined for mpii \(16 points\)"):
        oks(truth, [], MPII)
    (result, *_) = perfect(truth)
    with pytest.raises(FasthgError, match=r"results\[0\] is of image 1, which the truth does not list"):
        oks(truth, [result | {"image_id": 1}], COCO)
    with pytest.raises(FasthgError, match=r"results\[0\] has 3 numbers, 17 points have 51"):
        oks(truth, [result | {"keypoints": [1, 2, 1]}], COCO)


@pytest.mark.parametrize("boxes", [False, True])
def test_crowds_unlabelled_people_ties_and_results_boxes_count_as_in_pycocotools(boxes: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    numbers = rng.permutation(np.arange(1, 2000, 97)).tolist()  # as text, 98 would come after 1940
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in numbers * 4:
        x, y, w, h = rng.uniform(10, 200, 4).round(1).tolist()
        flags = rng.choice([0, 1, 2], 17) * (rng.random() < 0.7)
        points = np.column_stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), flags]) * (flags > 0)[:, None]
        where = {"image_id": image, "category_id": 1, "bbox": [x, y, w, h]}
        person = {"id": len(annotations) + 1, "area": 0.4 * w * h, "iscrowd": int(rng.random() < 0.2)}
        person |= {"num_keypoints": int((flags > 0).sum()), "keypoints": points.ravel().tolist()}
        annotations.append(where | person)
        points[:, :2] += rng.normal(0, 0.06 * w, (17, 2))
        found = {"keypoints": points.ravel().tolist(), "score": float(rng.choice([0.3, 0.5, 0.9]))}
        results.append((where if boxes else {**where, "bbox": []}) | found)
    images = [{"id": number, "file_name": f"{number}.png"} for number in numbers]
    kinds = [{"id": 1, "name": "person", "keypoints": list(COCO.names)}]
    (tmp_path / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": kinds})
    )
    expected = by_pycocotools(tmp_path / "truth.json", json.loads(json.dumps(results)))
    assert 5 < expected["AP"] < 95
    assert oks(tmp_path / "truth.json", results, COCO) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("given", ["boxes", "detections"])
def test_eval_scores_given_boxes_and_detected_ones_and_writes_what_score_reads(
    truth: Path, given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8), skeleton=COCO)
    save(HourglassNet(config), tmp_path / "coco.safetensors")
    arguments = ["eval", "--data", str(truth), "--split", "all", "--weights", str(tmp_path / "coco.safetensors")]
    arguments += ["--path", "eager", "--size", "64", "--results", str(tmp_path / "results.json"), "--json"]
    detections = ["--detections", str(truth.with_name("test_coco_det_AP_H_56.json"))] if given == "detections" else []
    assert main([*arguments, *detections]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.get("protocol") == ("pck-box@0.1" if given == "boxes" else None)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == (12 if given == "boxes" else 118)
    assert document["oks"] == pytest.approx(by_pycocotools(truth, results), abs=1e-6)
    assert main([*arguments, *detections]) == 2  # an earlier result is kept


def two_files(folder: Path) -> Path:
    """A project as Roboflow exports it: an a.png in either split, with another number and another person."""
    for split, number, x in (("train", 1, 20), ("valid", 9, 70)):
        (folder / split).mkdir()
        cv2.imwrite(str(folder / split / "a.png"), np.full((80, 100, 3), x, np.uint8))
        points = [value for point in range(17) for value in (x + point, 10 + 3 * point, 2)]
        person = {"id": 1, "image_id": number, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "keypoints": points}
        document = {
            "images": [{"id": number, "file_name": "a.png", "width": 100, "height": 80}],
            "annotations": [person | {"bbox": [x, 10, 17, 50], "area": 850}],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        }
        (folder / split / "_annotations.coco.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("written", ["./a.png", "train/../a.png", ".\\a.png", "a.png"])
def test_an_image_counts_however_its_file_writes_its_name(written: str, tmp_path: Path) -> None:
    annotations = two_files(tmp_path) / "train" / "_annotations.coco.json"
    (annotations.parent / "train").mkdir()
    annotations.write_text(annotations.read_text().replace('"a.png"', json.dumps(written)))
    dataset = load_dataset(annotations, "all")
    people = dataset.people
    results = results_of_dataset(dataset, people.joints, people.labelled.astype(float), None, None)
    assert (oks_of_dataset(dataset, results, None) or {})["AP"] == pytest.approx(100)


@pytest.mark.parametrize(("split", "number"), [("train", 1), ("val", 9)])
def test_each_split_of_a_project_is_scored_against_its_own_file(split: Any, number: int, tmp_path: Path) -> None:
    dataset = load_dataset(two_files(tmp_path), split)
    people = dataset.people
    results = results_of_dataset(dataset, people.joints, people.labelled.astype(float), None, None)
    assert [result["image_id"] for result in results] == [number]
    assert (oks_of_dataset(dataset, results, None) or {})["AP"] == pytest.approx(100)
    boxes = [{"image_id": image, "category_id": 1, "bbox": [5, 5, 40, 40], "score": 0.1 * image} for image in (1, 9)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    detected, scores = at_detections(dataset, tmp_path / "boxes.json", None, pytest.fail)
    assert (detected.people.images, scores.tolist()) == (people.images, [pytest.approx(0.1 * number)])


def test_results_of_both_splits_have_no_file_to_refer_to(
    tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8), skeleton=COCO)
    save(HourglassNet(config), tmp_path / "coco.safetensors")
    arguments = ["eval", "--data", two_files(tmp_path), "--split", "all", "--weights", tmp_path / "coco.safetensors"]
    arguments += ["--path", "eager", "--size", "64"]
    assert "is no file of COCO's keypoints" in refused(*arguments, "--results", tmp_path / "results.json")
    assert main([*map(str, arguments), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["oks"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": [1]}, r"image_id is [1]"),
        ({"category_id": None}, "category_id is None"),
        ({"score": "high"}, "score is 'high'"),
        ({"score": float("nan")}, "score is nan"),
        ({"bbox": "abc"}, "bbox is 'abc'"),
        ({"bbox": [1, 2]}, "bbox is [1, 2]"),
        ({"keypoints": None}, "keypoints is None"),
        ({"keypoints": ["a"] * 51}, "keypoints is ['a', 'a'"),
    ],
)
def test_a_result_of_something_else_is_named(
    change: dict[str, Any], message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    truth = two_files(tmp_path) / "valid" / "_annotations.coco.json"
    (tmp_path / "results.json").write_text(json.dumps([*perfect(truth), perfect(truth)[0] | change]))
    assert f"results[1]: {message}" in refused("score", tmp_path / "results.json", "--truth", truth)


def test_the_longest_name_that_fits_stands_for_an_image() -> None:
    assert listed_name(["a.png", "x/a.png"], "valid/x/a.png") == "x/a.png"
    with pytest.raises(FasthgError, match=r"image valid/b\.png is none of those"):
        listed_name(["a.png"], "valid/b.png")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda i, a: a.update(id=i), id="numbered from 0"),
        pytest.param(lambda i, a: a.update(id=1), id="one number"),
        pytest.param(lambda i, a: a.pop("id"), id="no number"),
        pytest.param(lambda i, a: a.pop("num_keypoints"), id="points not counted"),
        pytest.param(lambda i, a: a.update(num_keypoints=0), id="points counted as 0"),
        pytest.param(lambda i, a: a.pop("area"), id="no area"),
        pytest.param(lambda i, a: a.update(area=None), id="area null"),
        pytest.param(lambda i, a: a.pop("bbox"), id="no box"),
        pytest.param(lambda i, a: a.update(bbox=[]), id="empty box"),
        pytest.param(lambda i, a: a.update(category_id=str(a["category_id"])), id="kinds as text"),
        pytest.param(lambda i, a: a.update(image_id=str(a["image_id"])), id="images as text"),
        pytest.param(lambda i, a: a.update(iscrowd="0"), id="crowds as text"),
        pytest.param(lambda i, a: i or [a.pop(name) for name in ("keypoints", "num_keypoints")], id="a box alone"),
        pytest.param(lambda i, a: i or a.update(keypoints=[], image_id=77), id="a box alone elsewhere"),
        pytest.param(lambda i, a: i or a.update(keypoints=[], bbox="none"), id="neither points nor a box"),
    ],
)
def test_exact_copies_are_perfect_whatever_a_tool_left_out(
    change: Callable[[int, dict[str, Any]], Any], tmp_path: Path
) -> None:
    truth = two_files(tmp_path) / "train" / "_annotations.coco.json"
    document = json.loads(truth.read_text())
    document["images"].append({"id": 2, "file_name": "b.png"})
    person = document["annotations"][0]
    document["annotations"] += [person | {"id": 2, "image_id": 2}, person | {"id": 3, "image_id": 1}]
    document["annotations"][2]["keypoints"] = [30 + value for value in person["keypoints"]]
    truth.write_text(json.dumps(document))
    results = perfect(truth)
    for i, annotation in enumerate(document["annotations"]):
        change(i, annotation)
    if document["annotations"][0].get("keypoints") == []:  # nobody is there any more
        results = results[1:]
    truth.write_text(json.dumps(document))
    assert oks(truth, results, COCO)["AP"] == pytest.approx(100)


@pytest.mark.parametrize("category", [None, "player", "2"])
def test_kinds_with_the_same_points_are_scored_as_one_or_the_chosen_one_alone(
    category: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = two_files(tmp_path) / "train" / "_annotations.coco.json"
    document = json.loads(truth.read_text())
    (kind,) = document["categories"]
    document["categories"] = [kind | {"name": "player"}, kind | {"id": 2, "name": "referee"}]
    moved = [60 + value if i % 3 == 0 else value for i, value in enumerate(document["annotations"][0]["keypoints"])]
    document["annotations"].append(document["annotations"][0] | {"id": 2, "category_id": 2, "keypoints": moved})
    truth.write_text(json.dumps(document))
    dataset = load_dataset(truth, "all", reading=Reading(category))
    people = dataset.people
    results = results_of_dataset(dataset, people.joints, people.labelled.astype(float), None, category)
    assert len(results) == (2 if category is None else 1)
    assert (oks_of_dataset(dataset, results, category) or {})["AP"] == pytest.approx(100)
    (tmp_path / "results.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(perfect(truth)).encode())  # of both kinds
    arguments = ["score", str(tmp_path / "results.json"), "--truth", str(truth), "--json"]
    assert main([*arguments, *(["--category", category] if category else [])]) == 0
    assert json.loads(capsys.readouterr().out)["oks"]["AP"] == pytest.approx(100)


def test_results_of_other_kinds_alone_are_named(tmp_path: Path) -> None:
    truth = two_files(tmp_path) / "train" / "_annotations.coco.json"
    (result,) = perfect(truth)
    with pytest.raises(FasthgError, match=r"none of the 1 results is of category person \(1\)"):
        oks(truth, [result | {"category_id": 5}], COCO)


def test_a_split_whose_file_orders_the_points_otherwise_is_scored_in_its_own_order(tmp_path: Path) -> None:
    valid = two_files(tmp_path) / "valid" / "_annotations.coco.json"
    document = json.loads(valid.read_text())
    points = np.array(document["annotations"][0]["keypoints"]).reshape(-1, 3)
    document["categories"][0]["keypoints"].reverse()
    document["annotations"][0]["keypoints"] = points[::-1].ravel().tolist()
    valid.write_text(json.dumps(document))
    dataset = load_dataset(tmp_path, "val")
    np.testing.assert_array_equal(dataset.people.joints[0] - 0.5, points[:, :2])
    results = results_of_dataset(dataset, dataset.people.joints, np.ones((1, 17)), None, None)
    assert results[0]["keypoints"][:2] == points[-1, :2].tolist()
    assert (oks_of_dataset(dataset, results, None) or {})["AP"] == pytest.approx(100)
    sigmas = tuple(0.001 if name == "nose" else 10.0 for name in COCO.names)  # an ankle may be anywhere, a nose not
    results[0]["keypoints"][0] += 30
    assert oks(valid, results, replace(COCO, sigmas=sigmas))["AP"] == pytest.approx(100)
