"""The four formats in which MPII's annotations go round, and LSP's, read into one table of people.

Every reader subtracts 0.5 from the files' 1-based pixel indices, so that coordinates are continuous with their origin
at the corner of the top-left pixel. A labelled joint counts also when it is occluded; what says "not labelled" differs:

release .mat    the point is not in `annopoints`; `is_visible` may be 0, 1, "0", "1", empty or absent (then visible)
bearpaw JSON    x, y, visible are 0, 0, 0; `visible` alone is 0 for an occluded joint
HRNet JSON      `joints_vis` is 0, or x, y are -1, -1; it is 1 for every labelled joint, so occlusion is not known
princeton .h5   x, y are 0, 0; coordinates are cut to whole pixels; centre and scale include the crop's shift and margin
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.lsp import is_lsp, read_lsp
from fasthg.data.people import NUM_JOINTS, People, Split, head_size_of, load_json, make_people
from fasthg.data.release import read_release
from fasthg.errors import FasthgError


def read_annotations(path: str | Path, split: Split = "all") -> People:
    """People of an annotation file, whose format is told by its content.

    `split` picks people of bearpaw's JSON, of the release `.mat` and of LSP's `joints.mat`. HRNet's JSON and
    princeton's `.h5` hold one split each and are read whole. The release `.mat` does not know the validation split
    (Tompson et al., CVPR 2015): for "train" and "val" it needs `valid.h5` or `mpii_annotations.json[.gz]` in its
    folder.

    Raises FasthgError that names the file and, where there is one, the row and the field that is missing or wrong.
    """
    path = Path(path)
    if split not in ("train", "val", "all"):
        raise FasthgError(f"split is {split!r}; choose train, val or all")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise FasthgError(f"annotations {path}: {error.strerror}; check the name") from None
    if start.startswith(b"\x89HDF"):
        people = _read_princeton(path)
    elif start.startswith(b"MATLAB"):
        people = _read_matlab(path, split)
    else:
        people = _read_json(path, split)
    _check(path, people)
    return people


def _read_matlab(path: Path, split: Split) -> People:
    return read_lsp(path, split) if is_lsp(path) else read_release(path, split)


def _read_json(path: Path, split: Split) -> People:
    records = load_json(path)
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise FasthgError(
            f"annotations {path}: expected a JSON list of people; see `fasthg.data.annotations` for the formats"
        )
    if {"joint_self", "objpos", "img_paths"} & records[0].keys():
        return _read_bearpaw(path, records, split)
    if {"joints", "joints_vis", "image"} & records[0].keys():
        return _read_hrnet(path, records)
    raise FasthgError(
        f"annotations {path}: row 0 has the fields {', '.join(sorted(records[0]))}; neither bearpaw's (joint_self,"
        " objpos, scale_provided, img_paths, isValidation) nor HRNet's (joints, joints_vis, center, scale, image)"
    )


def _column(path: Path, records: list[dict[str, Any]], field: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """One field of every record as float64 [N, *shape]."""
    column = np.empty((len(records), *shape))
    for row, record in enumerate(records):
        if field not in record:
            raise FasthgError(f"annotations {path}: row {row} has no field {field!r}")
        try:
            value = np.asarray(record[field], np.float64)
        except (TypeError, ValueError, OverflowError):
            raise FasthgError(f"annotations {path}: row {row}: {field!r} is not numbers") from None
        if value.shape != shape:
            raise FasthgError(f"annotations {path}: row {row}: {field!r} has shape {value.shape}, expected {shape}")
        column[row] = value
    return column


def _names(path: Path, records: list[dict[str, Any]], field: str) -> tuple[str, ...]:
    for row, record in enumerate(records):
        if not isinstance(record.get(field), str):
            raise FasthgError(f"annotations {path}: row {row} has no file name in {field!r}")
    return tuple(record[field] for record in records)


def _read_bearpaw(path: Path, records: list[dict[str, Any]], split: Split) -> People:
    """JSON of CPM, bearpaw and anibali; `head_box` (x1, y1, x2, y2) is an addition of rendered datasets."""
    if split != "all":
        wanted = float(split == "val")
        is_validation = _column(path, records, "isValidation", ())
        records = [record for record, value in zip(records, is_validation) if value == wanted]
    joints = _column(path, records, "joint_self", (NUM_JOINTS, 3))
    has_boxes = any("head_box" in record for record in records)
    boxes = _column(path, records, "head_box", (4,)) if has_boxes else np.full((len(records), 4), np.nan)
    return make_people(
        images=_names(path, records, "img_paths"),
        center=_column(path, records, "objpos", (2,)),
        scale=_column(path, records, "scale_provided", ()),
        joints=joints[..., :2],
        labelled=(joints != 0).any(axis=-1) & _has_place(joints[..., :2], joints[..., 2] > 0),
        visible=joints[..., 2] > 0,
        head_size=head_size_of(boxes),
    )


def _read_hrnet(path: Path, records: list[dict[str, Any]]) -> People:
    joints = _column(path, records, "joints", (NUM_JOINTS, 2))
    present = _column(path, records, "joints_vis", (NUM_JOINTS,)) > 0
    return make_people(
        images=_names(path, records, "image"),
        center=_column(path, records, "center", (2,)),
        scale=_column(path, records, "scale", ()),
        joints=joints,
        labelled=present & (joints != -1).any(axis=-1),
        visible=present,
        head_size=np.full(len(records), np.nan),
    )


def _read_princeton(path: Path) -> People:
    import h5py

    needed = ("imgname", "center", "scale", "part", "visible", "normalize")
    try:
        with h5py.File(path, "r") as file:
            content = {field: file[field][:] for field in needed if field in file}
    except Exception as error:  # h5py raises whatever its library meets in a damaged file
        raise FasthgError(f"annotations {path}: not a whole HDF5 file ({error}); copy it again") from None
    if missing := [field for field in needed if field not in content]:
        raise FasthgError(f"annotations {path}: no {', '.join(missing)} in this HDF5 file; princeton's have them")
    names, center, scale, joints, visible, head_size = (content[field] for field in needed)
    shapes = {"center": (2,), "scale": (), "part": (NUM_JOINTS, 2), "visible": (NUM_JOINTS,), "normalize": ()}
    for field, shape in shapes.items():
        if content[field].shape != (len(names), *shape) or content[field].dtype.kind not in "fiub":
            expected = f"{len(names)} people's numbers of shape {shape}"
            raise FasthgError(f"annotations {path}: {field!r} has shape {content[field].shape}, expected {expected}")
    scale = scale / 1.25
    return make_people(
        images=tuple(_text(name) for name in names),
        center=np.stack([center[:, 0], center[:, 1] - 15 * scale], axis=1),
        scale=scale,
        joints=joints,
        labelled=(joints != 0).any(axis=-1) & _has_place(joints, visible > 0),
        visible=visible > 0,
        head_size=head_size,
    )


def _has_place(joints: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether joints [N, J, 2] are anywhere: hidden ones without numbers, or at HRNet's -1, -1, are absent."""
    return np.asarray(visible | (np.isfinite(joints).all(axis=-1) & (joints != -1).any(axis=-1)), bool)


def _text(name: Any) -> str:
    """A file name of an HDF5 file: bytes, or one number for each character."""
    characters = name if isinstance(name, bytes) else np.asarray(name).astype(np.uint8).tobytes()
    return os.fsdecode(characters.rstrip(b"\0"))


def _check(path: Path, people: People) -> None:
    """Refuse boxes and joints that no crop can be made of."""
    bad_scale = ~(np.isfinite(people.scale) & (people.scale > 0))
    bad_center = ~np.isfinite(people.center).all(axis=1)
    bad_joint = (people.labelled & ~np.isfinite(people.joints).all(axis=-1)).any(axis=1)
    bad_head = people.head_size <= 0
    for bad, name, values in (
        (bad_scale, "scale", people.scale),
        (bad_center, "center", people.center),
        (bad_joint, "joints", people.joints),
        (bad_head, "head size", people.head_size),
    ):
        if bad.any():
            row = int(bad.argmax())
            value = "NaN or infinite" if name == "joints" else str(values[row])
            raise FasthgError(
                f"annotations {path}: row {row} ({people.images[row]}): {name} is {value}; correct the file or drop the"
                f" row ({int(bad.sum())} such rows)"
            )
