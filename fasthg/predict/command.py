"""Poses as files: JSON, CSV, COCO's keypoints and MATLAB."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasthg.console import note, progress_bar
from fasthg.errors import FasthgError
from fasthg.files import staged_files, write_bytes, write_json, write_text
from fasthg.metrics.prediction_files import predictions_document
from fasthg.pixels.geometry import JOINT_NAMES, SKELETON
from fasthg.predict.boxes import Boxes
from fasthg.predict.overlays import Overlays
from fasthg.predict.predictor import Pose, Predictor
from fasthg.predict.sources import Source, count_photos, expand, photos


def write_poses(folder: Path, poses: Sequence[Pose], formats: Sequence[str], about: dict[str, Any]) -> list[Path]:
    """Write `poses` in each of `formats` (keys of FORMATS) to `folder`; `about` goes into the JSON beside them."""
    return [FORMATS[name](folder, poses, about) for name in formats]


def _write_predictions(folder: Path, poses: Sequence[Pose], about: dict[str, Any]) -> Path:
    """predictions.json, which `fasthg score` reads; each record also has the person's box and frame."""
    joints, scores = _stacked(poses)
    document = predictions_document([pose.image for pose in poses], joints, scores)
    for record, pose in zip(document["predictions"], poses):
        record["box"] = [round(value, 4) for value in pose.box]
        record["whole_image"] = pose.whole_image
        if pose.frame is not None:
            record["frame"] = pose.frame
    path = folder / "predictions.json"
    write_json(path, {**document, "skeleton": [list(limb) for limb in SKELETON], **about})
    return path


def _write_csv(folder: Path, poses: Sequence[Pose], about: dict[str, Any]) -> Path:
    """predictions.csv: a row for each person, three columns for each joint, pixels as in the JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{value}" for name in JOINT_NAMES for value in ("x", "y", "score")]
    writer.writerow(["image", "frame", "box_x", "box_y", "box_w", "box_h", *columns])
    for pose in poses:
        values = np.column_stack([pose.joints, pose.scores]).ravel()
        frame = "" if pose.frame is None else pose.frame
        writer.writerow([pose.image, frame, *(f"{v:g}" for v in pose.box), *(f"{v:.4f}" for v in values)])
    path = folder / "predictions.csv"
    write_text(path, text.getvalue())
    return path


def _write_coco(folder: Path, poses: Sequence[Pose], about: dict[str, Any]) -> Path:
    """keypoints.json in COCO's format: pixel j's centre has coordinate j there, so half a pixel is taken off."""
    ids: dict[tuple[str, int | None], int] = {}
    for pose in poses:
        ids.setdefault((pose.image, pose.frame), len(ids) + 1)
    images = [
        {"id": i, "file_name": name} | ({} if frame is None else {"frame": frame}) for (name, frame), i in ids.items()
    ]
    annotations = []
    for number, pose in enumerate(poses, start=1):
        flat = np.column_stack([pose.joints - 0.5, np.full(len(pose.joints), 2.0)]).round(4).ravel().tolist()
        annotations.append(
            {
                "id": number,
                "image_id": ids[pose.image, pose.frame],
                "category_id": 1,
                "bbox": list(pose.box),
                "area": pose.box[2] * pose.box[3],
                "iscrowd": 0,
                "num_keypoints": len(pose.joints),
                "keypoints": flat,
                "keypoint_scores": [round(float(score), 4) for score in pose.scores],
                "score": round(float(pose.scores.mean()), 4),
            }
        )
    skeleton = [[a + 1, b + 1] for a, b in SKELETON]  # COCO counts joints from one
    category = {"id": 1, "name": "person", "keypoints": list(JOINT_NAMES), "skeleton": skeleton}
    path = folder / "keypoints.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": [category]})
    return path


def _write_mat(folder: Path, poses: Sequence[Pose], about: dict[str, Any]) -> Path:
    """predictions.mat: `preds` [N, 16, 2] in 1-based pixels, as MPII's own files; scores, boxes, images and frames."""
    from scipy.io import savemat

    joints, scores = _stacked(poses)
    frames = [-1 if pose.frame is None else pose.frame for pose in poses]
    content = {
        "preds": joints + 0.5,
        "scores": scores,
        "boxes": np.array([pose.box for pose in poses]),
        "frames": np.array(frames),
        "images": np.array([pose.image for pose in poses], dtype=object),
    }
    buffer = io.BytesIO()
    savemat(buffer, content)
    path = folder / "predictions.mat"
    write_bytes(path, buffer.getvalue())
    return path


FORMATS: dict[str, Callable[[Path, Sequence[Pose], dict[str, Any]], Path]] = {
    "json": _write_predictions,
    "csv": _write_csv,
    "coco": _write_coco,
    "mat": _write_mat,
}


def _stacked(poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([pose.joints for pose in poses]), np.stack([pose.scores for pose in poses])


def predict_to_folder(
    inputs: Sequence[Source],
    folder: Path,
    boxes: Boxes | Mapping[str, Boxes] | None = None,
    formats: Sequence[str] = ("json",),
    overlays: bool = True,
    *,
    batch_size: int = 8,
    **options: Any,
) -> list[Path]:
    """Predict on photographs, folders and videos and write everything to `folder`; returns the files.

    boxes    the people of the one image or video, or of photographs by file name; None where each image is one person
    options  of Predictor

    Shows a progress bar and says what runs and how long it took. Nothing is left in `folder` where anything fails.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise FasthgError(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    found = expand(inputs)
    if isinstance(boxes, np.ndarray) and len(found) > 1:
        raise FasthgError(f"one set of boxes for {len(found)} images; give boxes in COCO's format with --boxes")
    count = count_photos(found)
    predictor = Predictor(batch_size=min(batch_size, count or batch_size), **options)
    note(f"path {predictor.path} ({predictor.precision}, {predictor.device}): {predictor.choice}")
    if boxes is None:
        note("no boxes: each whole image is taken as one person; --bbox x,y,w,h or --boxes FILE say where people are")
    poses: list[Pose] = []
    with staged_files(folder) as aside:
        with Overlays(aside) as drawn, progress_bar() as bar:
            task = bar.add_task("images", total=count)
            for photo, image, people in predictor.stream(photos(found, boxes)):
                poses += people
                if overlays and (people or photo.frame is not None):
                    drawn.add(photo, image, people)
                bar.advance(task)
        if not poses:
            raise FasthgError("no person to predict: the boxes are of none of the images; check their file names")
        files = write_poses(aside, poses, formats, _about(predictor)) + drawn.written
    note(str(predictor.timing))
    return [folder / file.relative_to(aside) for file in files]


def _about(predictor: Predictor) -> dict[str, Any]:
    timing = predictor.timing
    return {
        "path": predictor.path,
        "precision": predictor.precision,
        "device": predictor.device,
        "flip": predictor.flip,
        "seconds": {"end_to_end": round(timing.total_s, 4), "network": round(timing.network_s, 4)},
        "outside_network": round(timing.outside, 4),
    }
