"""Leeds Sports Pose: `joints.mat` beside `images/`, 14 joints of one person in each photograph.

    LSP, Johnson and Everingham, BMVC 2010            joints [3, 14, 2000], images/im0001.jpg and so on
    LSP Extended, Johnson and Everingham, CVPR 2011   joints [14, 3, 9000 or 10000], images/im00001.jpg and so on

The joints are 0-based pixels, as far as can be told; pelvis and thorax are not among them. The third value is 1 for a
labelled joint in the extended set. In LSP all joints are labelled and it is 1 for a hidden one.

Neither has boxes: the crop is a square about the labelled joints, 1.3 times their larger extent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthg.data.matlab import read_mat
from fasthg.data.people import NUM_JOINTS, People, Split
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import LSP, MPII

JOINTS_FILE = "joints.mat"
MIN_JOINTS = 8  # labelled, for a person to be trained on
BOX_MARGIN = 1.3  # of the crop's side over the larger extent of the labelled joints

TO_MPII = tuple(MPII.names.index(name) for name in LSP.names)

#: For each number of photographs: where the people to train on end, and the people to validate on. LSP's are its
#: authors'; those of the extended set, which has no validation people, are this project's.
SPLITS = {2_000: (1_000, 2_000), 9_000: (8_500, 9_000), 10_000: (8_500, 9_000)}


def is_lsp(path: Path) -> bool:
    """Whether a MATLAB file holds an array `joints` of LSP's or the extended set's shape."""
    try:
        with path.open("rb") as file:
            if file.read(6) != b"MATLAB":
                return False
        import scipy.io

        shapes = {name: shape for name, shape, _kind in scipy.io.whosmat(path)}
    except Exception:  # scipy raises whatever its parser meets; whoever reads the file says what is wrong with it
        return False
    shape = shapes.get("joints", ())
    return len(shape) == 3 and sorted(shape[:2]) == [3, 14]


def read_lsp(path: Path, split: Split) -> People:
    """The people of `joints.mat`, `split` by the number of photographs (see SPLITS).

    People with fewer than 8 labelled joints are left out of "train" alone; whoever scores says who counts. Head sizes
    are not known: there are no head boxes. Raises FasthgError for an array that is not whole.
    """
    x, y, labelled, visible = _load(path)
    count = len(x)
    digits = 4 if count == 2_000 else 5
    rows = _rows(path, count, split)
    if split == "train":
        rows = rows[labelled[rows].sum(axis=1) >= MIN_JOINTS]
    points = np.stack([x, y], axis=-1)[rows] + 0.5
    center, scale = _boxes(path, points, labelled[rows])
    joints = np.full((len(rows), NUM_JOINTS, 2), np.nan)
    joints[:, TO_MPII] = np.where(labelled[rows][..., None], points, np.nan)
    return People(
        images=tuple(f"im{row + 1:0{digits}d}.jpg" for row in rows),
        center=center,
        scale=scale,
        joints=joints,
        labelled=_as_mpii(labelled[rows]),
        visible=_as_mpii(visible[rows]),
        head_size=np.full(len(rows), np.nan),
    )


def _load(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """x, y, labelled and visible, each [N, 14]."""
    try:
        array = np.asarray(read_mat(path, variable_names=["joints"])["joints"], np.float64)
    except Exception as error:
        raise FasthgError(f"annotations {path}: not a whole MATLAB file ({error}); copy it again") from None
    extended = array.shape[0] == 14
    x, y, flag = array.transpose(1, 2, 0) if extended else array.transpose(0, 2, 1)
    labelled = flag > 0 if extended else np.ones_like(flag, bool)
    bad = (labelled & ~(np.isfinite(x) & np.isfinite(y))).any(axis=1)
    if bad.any():
        raise FasthgError(
            f"annotations {path}: person {bad.argmax() + 1} has a joint at NaN or infinity; copy it again"
        )
    return x, y, labelled, labelled if extended else flag == 0


def _rows(path: Path, count: int, split: Split) -> NDArray[np.int64]:
    if split == "all":
        return np.arange(count)
    if count not in SPLITS:
        known = ", ".join(f"{number:,}" for number in SPLITS)
        raise FasthgError(
            f"annotations {path}: {count:,} people; splits are known for {known} (LSP, LSP Extended): read split 'all'"
        )
    start, stop = SPLITS[count]
    return np.arange(start) if split == "train" else np.arange(start, stop)


def _boxes(
    path: Path, points: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [N, 2] and scales [N] with which `crop_matrix` cuts the square about the labelled points [N, 14, 2]."""
    low = np.where(labelled[..., None], points, np.inf).min(axis=1)
    high = np.where(labelled[..., None], points, -np.inf).max(axis=1)
    extent = (high - low).max(axis=1)
    if not (extent > 0).all():
        row = int((~(extent > 0)).argmax())
        raise FasthgError(f"annotations {path}: row {row} has fewer than two labelled joints, of which no box is made")
    return geometry.crop_to_center_scale((low + high) / 2, BOX_MARGIN * extent)


def _as_mpii(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Flags [N, 14] in the places of MPII's joints."""
    ours = np.zeros((len(flags), NUM_JOINTS), bool)
    ours[:, TO_MPII] = flags
    return ours
