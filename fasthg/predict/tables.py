"""Poses by frame and individual: DeepLabCut's tables and SLEAP's analysis file, both in 0-based pixel centres.

    dlc     predictions_dlc.csv: rows of names (scorer, individuals where there are several, bodyparts, coords), then
            a row for each frame of the video, or for each photograph: x, y, likelihood
    dlc-h5  predictions_dlc.h5: the same as pandas' frame "df_with_missing", which DeepLabCut loads
    sleap   predictions.analysis.h5: tracks [T, 2, J, F], point_scores [T, J, F], node_names, edge_inds and so on, as
            SLEAP and its users' programs read them; frame_times [F] beside, in seconds, NaN where not known

An individual is a subject's place in its frame: nothing follows subjects from frame to frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.errors import FasthgError
from fasthg.files import atomic_path, write_text
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict.predictor import Pose

SCORER = "fasthg"


@dataclass(frozen=True)
class Frames:
    """Poses of one video, or of photographs.

    index   F frame numbers from 0 on without a gap, or names of photographs
    points  float64 [F, T, J, 2] 0-based pixel centres, NaN where there is nobody
    scores  float64 [F, T, J]
    times   float64 [F] seconds, NaN where not known
    source  the video; empty for photographs
    """

    index: list[int] | list[str]
    points: NDArray[np.float64]
    scores: NDArray[np.float64]
    times: NDArray[np.float64]
    source: str

    @property
    def individuals(self) -> list[str]:
        return [f"individual{number}" for number in range(1, self.points.shape[1] + 1)]


def by_frame(poses: Sequence[Pose], skeleton: Skeleton) -> Frames:
    """Poses as arrays; raises FasthgError for several videos, whose frames have the same numbers."""
    videos = sorted({pose.image for pose in poses if pose.frame is not None})
    if videos and len({pose.image for pose in poses}) > 1:
        raise several_videos(videos[0])
    if videos:
        keys: dict[Any, int] = {number: number for number in range(max(pose.frame or 0 for pose in poses) + 1)}
    else:
        keys = {name: place for place, name in enumerate(dict.fromkeys(pose.image for pose in poses))}
    places: dict[Any, int] = dict.fromkeys(keys, 0)
    slots = []
    for pose in poses:
        key = pose.image if pose.frame is None else pose.frame
        slots.append((keys[key], places[key]))
        places[key] += 1
    shape = (len(keys), max(places.values()), len(skeleton))
    points, scores, times = np.full((*shape, 2), np.nan), np.full(shape, np.nan), np.full(len(keys), np.nan)
    for pose, (frame, who) in zip(poses, slots):
        points[frame, who], scores[frame, who] = pose.joints - 0.5, pose.scores
        times[frame] = np.nan if pose.time is None else pose.time
    index = list(keys) if videos else [as_text(name) for name in keys]
    return Frames(index, points, scores, times, videos[0] if videos else "")


def several_videos(video: str) -> FasthgError:
    """The error for a video and something else in one table."""
    return FasthgError(f"{video} and others in one table: frames have no names; predict one video at a time")


def as_text(name: str) -> str:
    """A file's name as text: bytes that are none are written as \\udcXX, as JSON writes them."""
    return name.encode("utf-8", "backslashreplace").decode()


def _columns(frames: Frames, skeleton: Skeleton) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names of the levels, and the column names of every value."""
    several = len(frames.individuals) > 1
    levels = ["scorer", *(["individuals"] if several else []), "bodyparts", "coords"]
    columns = [
        (SCORER, *((who,) if several else ()), name, value)
        for who in frames.individuals
        for name in skeleton.names
        for value in ("x", "y", "likelihood")
    ]
    return levels, columns


def _rows(frames: Frames) -> Iterator[NDArray[np.float64]]:
    """The values of each frame in the columns' order."""
    for points, scores in zip(frames.points, frames.scores):
        yield np.concatenate([points, scores[..., None]], axis=-1).ravel()


def write_dlc_csv(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """DeepLabCut's CSV."""
    frames = by_frame(poses, skeleton)
    levels, columns = _columns(frames, skeleton)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for place, level in enumerate(levels):
        writer.writerow([level, *(column[place] for column in columns)])
    for key, values in zip(frames.index, _rows(frames)):
        nothing = "NaN" if np.isnan(values).all() else ""  # else pandas takes a first empty row for the index's name
        writer.writerow([key, *(nothing if np.isnan(value) else f"{value:.4f}" for value in values)])
    write_text(path, text.getvalue())


def write_dlc_h5(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """DeepLabCut's HDF5, written by pandas."""
    import pandas
    import tables  # noqa: F401 - what pandas writes by, named here where it is missing

    frames = by_frame(poses, skeleton)
    levels, columns = _columns(frames, skeleton)
    index = pandas.MultiIndex.from_tuples(columns, names=levels)
    table = pandas.DataFrame(np.stack(list(_rows(frames))), columns=index, index=frames.index)
    with atomic_path(path) as aside:
        table.to_hdf(aside, key="df_with_missing", mode="w")


def write_sleap(path: Path, poses: Sequence[Pose], skeleton: Skeleton, about: dict[str, Any]) -> None:
    """SLEAP's analysis HDF5."""
    import h5py

    frames = by_frame(poses, skeleton)
    present = np.isfinite(frames.points).all(axis=(2, 3))
    limbs = np.array(skeleton.limbs, np.int64).reshape(-1, 2)
    with atomic_path(path) as aside, h5py.File(aside, "w") as file:
        file["tracks"] = frames.points.transpose(1, 3, 2, 0)
        file["track_occupancy"] = present.astype(np.uint8)
        file["point_scores"] = frames.scores.transpose(1, 2, 0)
        with np.errstate(invalid="ignore"):
            file["instance_scores"] = frames.scores.mean(axis=2).T
        file["tracking_scores"] = np.where(present, 0.0, np.nan).T
        file["track_names"] = [name.encode() for name in frames.individuals]
        nodes = [name.encode() for name in skeleton.names]
        file["node_names"] = nodes
        file["edge_names"] = np.array([[nodes[a], nodes[b]] for a, b in limbs], "S").reshape(-1, 2)
        file["edge_inds"] = limbs
        file["video_path"] = as_text(frames.source).encode()
        file["frame_times"] = frames.times
        file["provenance"] = b'{"made_by": "fasthg"}'
