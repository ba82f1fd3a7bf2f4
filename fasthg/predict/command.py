"""`fasthg predict`: poses of photographs, folders and videos as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasthg.console import note, progress_bar
from fasthg.errors import FasthgError
from fasthg.files import Inputs, new_folder, staged_files
from fasthg.predict.boxes import Boxes, Lookup
from fasthg.predict.formats import FORMATS, check_formats, write_poses
from fasthg.predict.overlays import Overlays
from fasthg.predict.photo import LeftOut
from fasthg.predict.predictor import Pose, Predictor
from fasthg.predict.sources import count_photos, expand, photos


@dataclass(frozen=True)
class Written:
    """What a prediction wrote, and how many photographs, frames and boxes it had to leave out."""

    files: list[Path]
    left_out: int


def predict_to_folder(
    inputs: Sequence[Path],
    folder: Path,
    boxes: Boxes | Lookup | None = None,
    formats: Sequence[str] = ("json",),
    overlays: bool = True,
    *,
    overwrite: bool = False,
    strict: bool = False,
    keep: Sequence[Path] = (),
    batch_size: int = 8,
    **options: Any,
) -> Written:
    """Predict on photographs, folders and videos and write everything to `folder`, or to a new one beside it where that
    holds an earlier result.

    boxes      the people of the one image or video, or of photographs by name; None where each image is one person
    overwrite  replace the files of an earlier run; the inputs are never written to
    strict     stop at the first photograph, frame or box that has to be left out
    keep       further files that are read and never written to
    options    of Predictor

    Shows a progress bar and says what runs and how long it took. Nothing is left in `folder` where anything fails.
    """
    formats = list(dict.fromkeys(name.strip().lower() for name in formats))
    found = expand(inputs)
    check_formats(formats, found)
    if not found:
        raise FasthgError("nothing to predict on; give photographs, folders or videos")
    if isinstance(boxes, np.ndarray) and len(found) > 1:
        raise FasthgError(f"one set of boxes for {len(found)} images; give boxes in COCO's format with --boxes")
    read, asked = Inputs([*found, *keep]), Path(folder)

    def settle(names: list[str]) -> Path:
        nonlocal folder
        before, folder = folder, new_folder(asked, names, read, overwrite)
        if folder not in (asked, before):
            note(f"{asked} holds an earlier result: this one goes to {folder}; --overwrite replaces the earlier one")
        return folder

    settle([FORMATS[name][0] for name in formats])
    count = count_photos(found)
    left_out = LeftOut(strict)
    one_person = boxes is None or (not isinstance(boxes, Lookup) and len(boxes) <= 1)
    alone = count == 1 and one_person  # without it there is nothing to go on with
    if isinstance(boxes, Lookup):
        if flat := boxes.ignored["without an area"]:
            left_out(f"{flat} boxes without an area", flat)
        for problem in boxes.unusable:
            left_out(problem)
    predictor = Predictor(batch_size=min(batch_size, count or batch_size), **options)
    note(f"path {predictor.path} ({predictor.precision}, {predictor.device}): {predictor.choice}")
    if boxes is None and not options.get("detect"):
        note("no boxes: each whole image is taken as one person; --bbox x,y,w,h, --boxes FILE or --detect say where")

    def is_taken(name: str) -> bool:
        target = folder / name
        return target.is_symlink() or (target.exists() and (not overwrite or target in read))

    poses: list[Pose] = []
    with staged_files(folder, settle) as aside:
        with Overlays(aside, predictor.skeleton, is_taken, left_out) as drawn, progress_bar() as bar:
            task = bar.add_task("images", total=count)
            for photo, people in predictor.stream(photos(found, boxes, left_out), None if alone else left_out):
                poses += people
                if overlays and (people or photo.frame is not None):
                    drawn.add(photo, people)
                bar.advance(task)
        if not poses:
            raise FasthgError(_why_nobody(boxes, left_out, predictor.detector is not None))
        files = write_poses(aside, poses, formats, predictor.skeleton, _about(predictor)) + drawn.written
    note(str(predictor.timing))
    return Written([folder / file.relative_to(aside) for file in files], left_out.count)


def _why_nobody(boxes: Boxes | Lookup | None, left_out: LeftOut, detected: bool) -> str:
    """Why there was no person to predict, with the way out."""
    if (
        isinstance(boxes, Lookup)
        and boxes.ignored
        and all(listed.boxes is None or not len(listed.boxes) for listed in boxes.values())
    ):
        reasons = ", ".join(f"{count} {reason}" for reason, count in boxes.ignored.items())
        return f"no person to predict: the file's boxes are {reasons}; give people's boxes"
    if left_out.count:
        return f"nothing could be predicted: all that was given is left out ({left_out.count}, named above)"
    if detected and boxes is None:
        return "no person to predict: the detector sees nobody; give people's boxes"
    if not boxes:
        return "no person to predict: there are no boxes; give people's boxes"
    return "no person to predict: the boxes are of none of the images; check their file names"


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
