"""People of a dataset, as every reader of an annotation format hands them on."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import MPII, Skeleton, check_same_points, shared_points

Split = Literal["train", "val", "all"]
NUM_JOINTS = len(MPII)  # of the formats that MPII's people go round in
HEAD_FRACTION = 0.6  # of the head box's diagonal: the length that PCKh divides by
HALF_PIXEL = 0.5
PERSON_HEIGHT = 200.0  # pixels of a person whose scale is 1


@dataclass(frozen=True)
class People:
    """N annotated people, animals or things with J points each; lengths are pixels of their photograph.

    images     N file names
    center     float64 [N, 2], annotated centre
    scale      float64 [N], the person's height over 200 pixels, about
    joints     float64 [N, J, 2], NaN where not labelled
    labelled   bool [N, J]
    visible    bool [N, J], labelled and not occluded
    head_size  float64 [N], 0.6 x the diagonal of the head's box; NaN where not known
    skeleton   which points they are
    """

    images: tuple[str, ...]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    joints: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    head_size: NDArray[np.float64]
    skeleton: Skeleton = MPII

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: ArrayLike) -> People:
        """The people of an index or bool array, in its order."""
        index = np.arange(len(self))[np.asarray(rows)]
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        return replace(self, images=tuple(self.images[row] for row in index), **arrays)

    def under(self, skeleton: Skeleton) -> People:
        """The same people under another skeleton's points: those that both name; the others are not labelled.

        Raises FasthgError where fewer than half of the skeleton's points are among theirs.
        """
        if self.skeleton.names == skeleton.names:
            return self
        shared = shared_points(self.skeleton, skeleton)
        if 2 * len(shared) < len(skeleton):
            check_same_points("the data", self.skeleton, skeleton)
        theirs, ours = list(shared), list(shared.values())
        joints = np.full((len(self), len(skeleton), 2), np.nan)
        labelled, visible = np.zeros((2, len(self), len(skeleton)), bool)
        joints[:, ours], labelled[:, ours], visible[:, ours] = (
            array[:, theirs] for array in (self.joints, self.labelled, self.visible)
        )
        return replace(self, joints=joints, labelled=labelled, visible=visible, skeleton=skeleton)


#: The fields of People that have an entry for each of them, the names of the photographs aside.
ARRAYS = tuple(field.name for field in fields(People) if field.name not in ("images", "skeleton"))


def head_size_of(boxes: ArrayLike) -> NDArray[np.float64]:
    """0.6 x the diagonal of head boxes [..., 4] given as x1, y1, x2, y2."""
    boxes = np.asarray(boxes, np.float64)
    return HEAD_FRACTION * np.hypot(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])


def make_people(
    images: tuple[str, ...],
    center: ArrayLike,
    scale: ArrayLike,
    joints: ArrayLike,
    labelled: ArrayLike,
    visible: ArrayLike,
    head_size: ArrayLike,
) -> People:
    """People from a file's 1-based coordinates: shifted to the corner's origin, NaN where a joint is not labelled."""
    is_labelled = np.asarray(labelled, bool)
    return People(
        images=images,
        center=np.asarray(center, np.float64) - HALF_PIXEL,
        scale=np.asarray(scale, np.float64),
        joints=np.where(is_labelled[..., None], np.asarray(joints, np.float64) - HALF_PIXEL, np.nan),
        labelled=is_labelled,
        visible=np.asarray(visible, bool) & is_labelled,
        head_size=np.asarray(head_size, np.float64),
    )


def unreadable(path: Path, error: OSError) -> FasthgError:
    """The error for a file that the system does not give."""
    return FasthgError(f"{path}: cannot be read ({error.strerror})")


def read_text(path: Path) -> str:
    """A text file, with or without the mark by which Windows begins one.

    Raises FasthgError that names a file that cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise FasthgError(
            f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def load_json(path: Path) -> Any:
    """Content of a JSON file, gzipped or not; FasthgError names a file that is neither."""
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    except gzip.BadGzipFile as error:  # an OSError, but not the system's
        raise FasthgError(f"{path}: not a whole JSON file ({error}); copy it again") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        raise FasthgError(f"{path}: not a whole JSON file ({error}); copy it again") from None
