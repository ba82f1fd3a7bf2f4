"""Predict poses on photographs and videos with any network, exported artefact and execution path."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fasthg.ahead import map_ahead, walk_ahead
from fasthg.errors import FasthgError
from fasthg.network.model import HourglassNet
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import Image, normalise, read_encoded
from fasthg.pixels.pictures import stored_turn
from fasthg.pixels.skeleton import SKELETONS
from fasthg.predict.boxes import (
    Boxes,
    Listed,
    Lookup,
    box_around,
    check_boxes,
    inside,
    read_coco_boxes,
    show_box,
    upright,
)
from fasthg.predict.depth import WHOLE, Depth
from fasthg.predict.detect import Detector
from fasthg.predict.load import load_runner
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.sources import Source, flatten, photos
from fasthg.runtimes.request import Mode

_READERS = 4  # threads that decode and crop photographs while the network runs
_HELD = 1 << 28  # bytes of pixels that wait for a batch, from which on it is run though it is not full


@dataclass(frozen=True)
class Pose:
    """One person.

    image        the photograph or video, as it was given
    frame        frame of the video, None for a photograph
    box          x, y, width, height in pixels
    whole_image  True where no box was given
    joints       float64 [J, 2], continuous pixels of the photograph, origin at the corner of its top-left pixel
    scores       float32 [J], the heatmaps' peaks, about 0 to 1
    time         second of the video at which the frame is shown; None where nothing says it
    """

    image: str
    frame: int | None
    box: tuple[float, float, float, float]
    whole_image: bool
    joints: NDArray[np.float64]
    scores: NDArray[np.float32]
    time: float | None = None


@dataclass
class Timing:
    """Seconds that predictions took: `total_s` from the first request to the last answer, `network_s` of it in runs of
    the network, or of an end-to-end artefact. Reading, cropping, normalisation and decoding are outside."""

    images: int = 0
    people: int = 0
    total_s: float = 0.0
    network_s: float = 0.0

    @property
    def outside(self) -> float:
        """Share of the time, 0 to 1, in which the network did not run."""
        return 1 - self.network_s / self.total_s if self.total_s else 0.0

    def __str__(self) -> str:
        if not self.people:
            return "0 people"
        return (
            f"{self.people} people in {self.images} images: {self.total_s:.2f} s end to end"
            f" ({self.images / self.total_s:.1f} images/s), {self.network_s:.2f} s in the network"
            f" ({1e3 * self.network_s / self.people:.1f} ms a person), {self.outside:.0%} of the time outside it"
        )


@dataclass
class _Seen:
    """A photograph's people as crops, and their poses as they are found; the photograph itself is not held.

    again  whether the one person of a whole image is still to be looked at closely
    """

    photo: Photo
    boxes: Boxes
    again: bool
    matrices: NDArray[np.float64]  # [P, 2, 3], photograph to crop
    crops: NDArray[np.uint8]  # [P, S, S, 3]
    outside: list[str]  # boxes that have nothing of the photograph
    poses: list[Pose] = field(default_factory=list)


class Predictor:
    """Poses of people on photographs.

    weights     a `.safetensors` checkpoint, a folder that `fasthg export` wrote, a network, or None for the weights
                that ship with the package
    variant     what the weights must be; None takes the network from the file
    runtime     an execution path such as "openvino:bf16", or "auto" for the fastest that was measured here
    device      "auto", "cpu", "cuda", "cuda:1"
    flip        average with the mirrored image: a little better, half as fast
    detect      find people on photographs without boxes, by YOLOX-Nano, whose weights are fetched once
    second_pass look again, closely, at the person of a whole image who fills little of it (people's skeletons only)
    batch_size  people in one run of the network
    size        side of the crops in pixels; None for the network's own, and an exported one has no other
    threads     CPU threads of the network; PyTorch's number where None
    mode        "latency": each batch as soon as possible; "throughput": the most images a second, which OpenVINO and
                ONNX Runtime reach by answering the images of a batch side by side
    depth       how many of the network's stacks run: `fasthg.predict.depth.Depth`

    `predictor(images, boxes)` returns a list of poses; `stream` gives photograph after photograph. `path`, `device`,
    `precision`, `choice` (why this path) say what runs, `skeleton` which points it finds, `timing` how long the last
    call took. Several threads may call one predictor. Raises FasthgError for bad input and BackendUnavailable where the
    path cannot run here.
    """

    def __init__(
        self,
        weights: str | Path | HourglassNet | None = None,
        *,
        variant: str | None = None,
        runtime: str = "auto",
        device: str | torch.device = "auto",
        flip: bool = False,
        detect: bool = False,
        second_pass: bool = True,
        batch_size: int = 8,
        size: int | None = None,
        threads: int | None = None,
        mode: Mode = "latency",
        depth: Depth = WHOLE,
    ) -> None:
        if batch_size < 1:
            raise FasthgError(f"batch size is {batch_size}; give at least 1")
        served = load_runner(weights, variant, runtime, device, batch_size, size, threads, mode, depth)
        if served.end_to_end and flip:
            raise FasthgError(
                f"{weights} is exported end to end: flipping is part of its graph or not; leave it out here"
            )
        self.fill_first = False  # whether a call's only batch is filled up too
        self.flip, self.end_to_end, self.timing = flip, served.end_to_end, Timing()
        self.detector = Detector() if detect else None
        self.second_pass = second_pass and served.skeleton.name in SKELETONS  # people; others learn from whole images
        self.runner, self.size, self.batch_size, self.choice = served.runner, served.size, served.batch_size, served.why
        self.mean, self.skeleton = served.mean, served.skeleton
        self.path, self.device, self.precision = self.runner.path, self.runner.device, self.runner.precision

    def __call__(
        self,
        images: Source | Iterable[Source],
        boxes: ArrayLike | Sequence[ArrayLike | None] | Mapping[str, ArrayLike] | str | Path | None = None,
    ) -> list[Pose]:
        """Poses of all people on `images`, in order.

        images  photographs, folders and videos (by path, encoded bytes, open files), Pillow images, arrays uint8 RGB
                [H, W, 3] or [N, H, W, 3], tensors [3, H, W] or [N, 3, H, W]; one of them or any iterable
        boxes   None: each image is one person as a whole, or has the people that are detected; one box [4] (x, y,
                width, height in pixels) or an array [P, 4]: the people of every image; also a list with
                an entry [4], [P, 4] or None for each of several images, and [[P, 4]] or [None] for one; a mapping from
                file names; the path of a COCO annotation file or of a list of detections
        """
        if boxes is None and isinstance(images, Iterator):  # each when its turn comes, on this thread
            stream = self.stream(photos(flatten(images)), ahead=0)
        elif inputs := list(flatten(images)):
            stream = self.stream(photos(inputs, as_boxes(boxes, len(inputs))))
        else:
            stream = iter(())
        count, found = 0, list[Pose]()
        for _photo, poses in stream:
            count += 1
            found += poses
        if not count and boxes is None:
            raise FasthgError("nothing to predict on; give photographs, folders or videos")
        return found

    def stream(
        self, found: Iterable[Photo], left_out: LeftOut | None = None, ahead: int = _READERS
    ) -> Iterator[tuple[Photo, list[Pose]]]:
        """Each photograph with its people's poses, in order; threads read and crop photographs ahead.

        left_out  told of photographs that cannot be read, which are not given, and of boxes outside them; where None
                  they are errors
        ahead     photographs that are drawn from `found` ahead, by a thread of its own; 0 draws them on this one
        """
        self.runner.check_process()
        self.timing = timing = Timing()
        start = time.perf_counter()
        waiting: deque[_Seen] = deque()
        crops: list[tuple[_Seen, int]] = []

        def finished(everything: bool = False) -> Iterator[tuple[Photo, list[Pose]]]:
            while waiting and (everything or len(waiting[0].poses) == len(waiting[0].boxes)):
                done = waiting.popleft()
                timing.images, timing.total_s = timing.images + 1, time.perf_counter() - start
                yield done.photo, done.poses

        left_out = left_out or LeftOut(strict=True)
        for seen in map_ahead(self._read, walk_ahead(found, ahead) if ahead else found, _READERS):
            if isinstance(seen, FasthgError):
                left_out(seen)
                continue
            for problem in seen.outside:
                left_out(problem)
            waiting.append(seen)
            crops += [(seen, person) for person in range(len(seen.boxes))]
            while len(crops) >= self.batch_size or (crops and sum(other.photo.held for other in waiting) > _HELD):
                crops[: self.batch_size] = self._answer(crops[: self.batch_size], timing, fill=True)
                yield from finished()
            yield from finished()
        while crops:
            crops[: self.batch_size] = self._answer(crops[: self.batch_size], timing, fill=self.fill_first)
        yield from finished(everything=True)

    def _answer(self, people: Sequence[tuple[_Seen, int]], timing: Timing, fill: bool) -> list[tuple[_Seen, int]]:
        """Run the network on one batch of people and give each photograph its poses; those to be looked at again."""
        crops = np.stack([seen.crops[person] for seen, person in people])
        # A batch that is not full is filled up, where it is not the only one: a new shape would be compiled anew.
        if timing.people or fill:
            crops = np.concatenate([crops, np.repeat(crops[-1:], self.batch_size - len(crops), axis=0)])
        points, scores = self._points(torch.from_numpy(crops), timing)
        again = []
        for (seen, person), crop_points, peaks in zip(people, points, scores):
            joints = geometry.apply(geometry.invert(seen.matrices[person]), crop_points)
            if seen.again and (closer := box_around(joints, peaks, seen.boxes[person])):
                seen.again = False
                with suppress(FasthgError):  # the photograph has gone away: the pose of the first look stays
                    seen.matrices, seen.crops = self._crops(seen.photo.load(), [closer])
                    again.append((seen, person))
                    continue
            x, y, w, h = map(float, seen.boxes[person])
            photo = seen.photo
            whole = photo.boxes is None and self.detector is None
            seen.poses.append(Pose(photo.name, photo.frame, (x, y, w, h), whole, joints, peaks, photo.time))
        timing.people += len(people) - len(again)
        return again

    @torch.inference_mode()
    def _points(self, crops: Tensor, timing: Timing) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Crops uint8 [N, S, S, 3] -> points [N, J, 2] in their pixels, scores [N, J]."""
        if self.end_to_end:
            answer = self._run(crops, timing)
            points, scores, sound = answer[..., :2], answer[..., 2], bool(answer.isfinite().all())
        else:
            images = normalise(crops, self.mean)
            heatmaps = self._run(images, timing)
            if self.flip:
                mirrored = normalise(crops.numpy()[:, :, ::-1], self.mean)
                heatmaps = (heatmaps + geometry.flip_heatmaps(self._run(mirrored, timing), self.skeleton)) / 2
            points, scores = decode(heatmaps)
            points = points * (self.size / heatmaps.shape[-1])
            values = heatmaps if heatmaps.is_cuda else heatmaps.numpy()  # see `normalise` for why NumPy
            with np.errstate(invalid="ignore"):
                sound = math.isfinite(values.sum())  # what NaN and infinity pass through, in a tenth of the time
        if not sound:
            raise FasthgError(f"{self.path} ({self.precision}) answered NaN or infinity; choose another path")
        return points.double().cpu().numpy(), scores.cpu().numpy()

    def _run(self, inputs: Tensor, timing: Timing) -> Tensor:
        """One run of the network, its time noted."""
        start = time.perf_counter()
        outputs = self.runner(inputs)
        if outputs.is_cuda:
            torch.cuda.synchronize(outputs.device)
        timing.network_s += time.perf_counter() - start
        return outputs

    def _read(self, photo: Photo) -> _Seen | FasthgError:
        """A photograph's people as crops, or why there are none."""
        try:
            image = photo.load()
            height, width = image.shape[:2]
            if photo.boxes is not None:
                boxes = photo.boxes
            elif self.detector:
                boxes = self.detector(image)
            else:
                boxes = np.array([[0.0, 0.0, width, height]])
            if photo.stated not in (None, (width, height)):
                turn = stored_turn(read_encoded(photo.name))
                boxes = upright(boxes, photo.stated, (width, height), turn, photo.name)  # type: ignore[arg-type]
        except FasthgError as error:
            return error
        kept = inside(boxes, width, height)
        outside = [
            f"box {show_box(box)} lies outside {photo.name} ({width}x{height} pixels); give x,y,w,h in its pixels"
            for box in boxes[~kept]
        ]
        boxes = boxes[kept]
        again = self.second_pass and photo.boxes is None and self.detector is None
        return _Seen(photo, boxes, again, *self._crops(image, boxes), outside)

    def _crops(self, image: Image, boxes: Iterable[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Maps [P, 2, 3] to the crops of the people in `boxes`, and the crops [P, S, S, 3]."""
        matrices = [geometry.crop_matrix(*geometry.box_to_center_scale(*box), size=self.size) for box in boxes]
        crops = [geometry.warp(image, matrix, self.size) for matrix in matrices]
        return np.array(matrices), np.array(crops, np.uint8)


def as_boxes(boxes: object, num_images: int) -> Boxes | list[Boxes | None] | Lookup | None:
    """What callers give as boxes, checked: see `Predictor.__call__`."""
    if boxes is None:
        return None
    if isinstance(boxes, (str, Path)):
        lookup = read_coco_boxes(boxes)
        if lookup.unusable:
            raise FasthgError(lookup.unusable[0])
        return lookup
    if isinstance(boxes, Mapping):
        return Lookup({str(name): Listed(check_boxes(rows, f"box of {name}")) for name, rows in boxes.items()})
    if isinstance(boxes, Sequence) and _has_entries(boxes, num_images):
        return [None if rows is None else check_boxes(rows) for rows in boxes]
    return check_boxes(boxes)  # type: ignore[arg-type]


def _has_entries(boxes: Sequence[Any], num_images: int) -> bool:
    """Whether a list holds the people of each image, not the people of every image: [None] and [[P, 4]] do."""
    if num_images > 1:
        return not all(np.isscalar(value) for value in boxes)
    try:
        return len(boxes) == 1 and (boxes[0] is None or np.ndim(boxes[0]) == 2)
    except ValueError:  # rows of several lengths, which are no boxes either way
        return False
