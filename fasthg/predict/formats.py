"""Poses as files: JSON, CSV, COCO's keypoints, MATLAB, and the tables of DeepLabCut and SLEAP."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasthg.errors import FasthgError
from fasthg.files import write_bytes, write_json, write_text
from fasthg.metrics.prediction_files import predictions_document
from fasthg.pixels.skeleton import SKELETONS, Skeleton
from fasthg.predict.predictor import Pose
from fasthg.predict.sources import has_frames
from fasthg.predict.tables import as_text, several_videos, write_dlc_csv, write_dlc_h5, write_sleap

#: To a file, poses of a skeleton, with what is said beside the poses.
Writer = Callable[[Path, Sequence[Pose], Skeleton, dict[str, Any]], None]


def check_formats(formats: Sequence[str], inputs: Sequence[Path]) -> None:
    """Refuse before the work what could not be written after it.

    Raises FasthgError for an unknown format and for a video among several inputs of one table, and ModuleNotFoundError
    for a library that is missing.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise FasthgError(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    if len(inputs) > 1 and _TABLES & set(formats) and (video := next(filter(has_frames, inputs), None)):
        raise several_videos(str(video))
    for name in formats:
        for library in _NEEDED.get(name, ()):
            importlib.import_module(library)


def write_poses(
    folder: Path, poses: Sequence[Pose], formats: Sequence[str], skeleton: Skeleton, about: dict[str, Any]
) -> list[Path]:
    """Write `poses` in each of `formats` (keys of FORMATS) to `folder`; `about` goes into the JSON beside them."""
    files = [folder / FORMATS[name][0] for name in formats]
    for file, name in zip(files, formats):
        FORMATS[name][1](file, poses, skeleton, about)
    return files


def _write_predictions(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """JSON that `fasthg score` reads; each record also has the person's box, and the frame with its time in seconds."""
    joints, scores = _stacked(poses)
    document = predictions_document([pose.image for pose in poses], joints, scores, skeleton)
    for record, pose in zip(document["predictions"], poses):
        record["box"] = [round(value, 4) for value in pose.box]
        record["whole_image"] = pose.whole_image
        if pose.frame is not None:
            record["frame"] = pose.frame
        if pose.time is not None:
            record["time"] = round(pose.time, 6)
    write_json(path, {**document, "skeleton": [list(limb) for limb in skeleton.limbs], **about})


def _write_csv(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """A row for each person, three columns for each joint, pixels as in the JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{value}" for name in skeleton.names for value in ("x", "y", "score")]
    writer.writerow(["image", "frame", "time", "box_x", "box_y", "box_w", "box_h", *columns])
    for pose in poses:
        values = np.column_stack([pose.joints, pose.scores]).ravel()
        place = ["" if pose.frame is None else pose.frame, "" if pose.time is None else f"{pose.time:.6f}"]
        writer.writerow([as_text(pose.image), *place, *(f"{v:g}" for v in pose.box), *(f"{v:.4f}" for v in values)])
    write_text(path, text.getvalue())


def _write_coco(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """COCO's format, in which pixel j's centre has coordinate j, so half a pixel is taken off."""
    ids: dict[tuple[str, int | None], int] = {}
    for pose in poses:
        ids.setdefault((pose.image, pose.frame), len(ids) + 1)
    times = {(pose.image, pose.frame): pose.time for pose in poses}
    images = [
        {"id": i, "file_name": key[0]}
        | ({} if key[1] is None else {"frame": key[1]})
        | ({} if times[key] is None else {"time": times[key]})
        for key, i in ids.items()
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
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]  # COCO counts joints from one
    name = "person" if skeleton.name in SKELETONS else skeleton.name
    category = {"id": 1, "name": name, "keypoints": list(skeleton.names), "skeleton": limbs}
    write_json(path, {"images": images, "annotations": annotations, "categories": [category]})


def _write_mat(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """MATLAB's `preds` [N, J, 2] in 1-based pixels, as MPII's own files; scores, boxes, images and frames."""
    from scipy.io import savemat

    joints, scores = _stacked(poses)
    frames = [-1 if pose.frame is None else pose.frame for pose in poses]
    content = {
        "preds": joints + 0.5,
        "scores": scores,
        "boxes": np.array([pose.box for pose in poses]),
        "frames": np.array(frames),
        "times": np.array([np.nan if pose.time is None else pose.time for pose in poses]),
        "images": np.array([as_text(pose.image) for pose in poses], dtype=object),
    }
    buffer = io.BytesIO()
    savemat(buffer, content)
    write_bytes(path, buffer.getvalue())


#: By the names that the command line has for them: the file, and what writes it.
FORMATS: dict[str, tuple[str, Writer]] = {
    "json": ("predictions.json", _write_predictions),
    "csv": ("predictions.csv", _write_csv),
    "coco": ("keypoints.json", _write_coco),
    "mat": ("predictions.mat", _write_mat),
    "dlc": ("predictions_dlc.csv", write_dlc_csv),
    "dlc-h5": ("predictions_dlc.h5", write_dlc_h5),
    "sleap": ("predictions.analysis.h5", write_sleap),
}


_TABLES = {"dlc", "dlc-h5", "sleap"}  # a row for each frame
_NEEDED = {"mat": ("scipy",), "dlc-h5": ("pandas", "tables"), "sleap": ("h5py",)}  # libraries beside fasthg's own


def _stacked(poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([pose.joints for pose in poses]), np.stack([pose.scores for pose in poses])
