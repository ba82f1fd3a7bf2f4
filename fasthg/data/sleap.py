"""SLEAP's labels (`.slp`, `.pkg.slp`), read by sleap-io.

Labelled frames of videos are written once as PNG into the cache, since everything here reads photographs. Predicted
instances are no labels. One animal is a whole image; several have a box about their points each. Of several skeletons
the one with the most points has to have those of the others. Coordinates are pixel centres.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fasthg.data.people import HALF_PIXEL
from fasthg.data.reading import Labels, Reading, make_labels, make_skeleton
from fasthg.errors import FasthgError
from fasthg.files import default_cache_dir, make_folder, sha256, write_bytes

LOOKED_FOR = "a .slp file (SLEAP)"


def sleap_file(path: Path) -> Path | None:
    """The label file of a folder, or the file itself; None where there is none."""
    files = [path] if path.suffix == ".slp" else sorted(path.glob("[!.]*.slp")) if path.is_dir() else []
    return next(filter(Path.is_file, files), None)


def read_sleap(path: Path, reading: Reading) -> Labels:
    """The labelled frames; raises FasthgError that names a file that cannot be read, or a frame without its video."""
    import sleap_io

    file = sleap_file(path)
    assert file is not None
    try:
        labels = sleap_io.load_slp(str(file))
    except Exception as error:  # h5py and its own errors
        raise FasthgError(f"{file}: cannot be read as SLEAP's labels ({error}); copy it again") from None
    if not labels.skeletons:
        raise FasthgError(f"{file}: no skeleton; give SLEAP's labels")
    theirs = _widest(file, labels)
    names = [node.name for node in theirs.nodes]
    told = [
        tuple(sorted((names.index(node.name) for node in symmetry.nodes), reverse=True))
        for symmetry in theirs.symmetries
    ]
    skeleton = make_skeleton(theirs.name or "animal", names, list(theirs.edge_inds), reading.pairs, told)  # type: ignore[arg-type]
    folder = _frames_folder(file)
    images, points, sizes = [], [], []
    for frame in labels.labeled_frames:
        if not frame.user_instances:
            continue
        name, size = _picture(frame, labels.videos.index(frame.video), folder, file)
        for instance in frame.user_instances:
            images.append(name)
            found = np.full((len(names), 2), np.nan)
            found[[names.index(name) for name in instance.skeleton.node_names]] = instance.numpy()[:, :2]
            points.append(found)
            sizes.append(size)
    if not points:
        raise FasthgError(f"{file}: no frame is labelled by hand; label some first")
    several = len(images) > len(set(images))
    places = np.array(points, np.float64)
    boxes = np.full((len(images), 4), np.nan) if several else None
    return make_labels(
        *(images, places + HALF_PIXEL, np.isfinite(places).all(-1), boxes, sizes, skeleton, folder, file),
        "SLEAP's labels",
    )


def _widest(file: Path, labels: Any) -> Any:
    """The skeleton with the most points of those that label something; raises FasthgError where another has others."""
    instances = [instance for frame in labels.labeled_frames for instance in frame.user_instances]
    used = list({id(instance.skeleton): instance.skeleton for instance in instances}.values()) or labels.skeletons
    widest = max(used, key=lambda skeleton: len(skeleton.nodes))
    for other in used:
        if lacking := [name for name in other.node_names if name not in widest.node_names]:
            raise FasthgError(
                f"{file}: skeleton {other.name} has {', '.join(lacking)}, which {widest.name} lacks; give labels of one"
                " skeleton, or of skeletons with the same points"
            )
    return widest


def _frames_folder(file: Path) -> Path:
    kept = default_cache_dir() or Path(_instead_of_a_cache().name)
    return make_folder(kept / "frames" / sha256(file)[:16])


@cache
def _instead_of_a_cache() -> tempfile.TemporaryDirectory[str]:
    """The process's own, which goes with it."""
    return tempfile.TemporaryDirectory(prefix="fasthg-")


def _picture(frame: Any, video: int, folder: Path, file: Path) -> tuple[str, tuple[int, int]]:
    """Name and size of a labelled frame as PNG in the folder, written where it is not there yet."""
    name = f"{video}-{frame.frame_idx:06d}.png"
    try:
        pixels = np.asarray(frame.image)
    except Exception as error:  # whatever reads the video
        raise FasthgError(
            f"{file}: frame {frame.frame_idx} of {frame.video.filename} cannot be read ({error})"
        ) from None
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    if not (folder / name).is_file():
        write_bytes(folder / name, cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes())
    return name, (pixels.shape[1], pixels.shape[0])
