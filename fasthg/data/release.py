"""MPII's own MATLAB files: the release, `mpii_human_pose_v1_u12_1.mat`, and the published truth of its validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.matlab import read_mat
from fasthg.data.people import NUM_JOINTS, People, Split, head_size_of, load_json, make_people
from fasthg.errors import FasthgError

#: Arrays of `detections_our_format.mat` and `gt_valid.mat`: the shape of one person, whose number is the last axis.
_PUBLISHED = {"pos_gt_src": (NUM_JOINTS, 2), "jnt_missing": (NUM_JOINTS,), "headboxes_src": (2, 2)}


def read_release(path: Path, split: Split) -> People:
    """People with joints in the release's training photographs (its test joints are not public).

    "val" are the people of the list beside the file; "train" are those of photographs that the list does not touch, so
    that no photograph is shared.
    """
    try:
        release = read_mat(path, squeeze_me=True, struct_as_record=False).get("RELEASE")
    except Exception as error:  # scipy raises whatever its parser meets in a damaged file
        raise FasthgError(f"annotations {path}: not a whole MATLAB file ({error}); copy it again") from None
    if release is None or not hasattr(release, "annolist") or not hasattr(release, "img_train"):
        raise FasthgError(f"annotations {path}: no RELEASE.annolist and RELEASE.img_train in this MATLAB file")
    validation = None if split == "all" else validation_people(path.parent)
    validation_images = {image for image, _person in validation or ()}
    rows = []
    for image_index in np.flatnonzero(np.atleast_1d(release.img_train)):
        if split == "train" and image_index in validation_images:
            continue
        image = np.atleast_1d(release.annolist)[image_index]
        for person_index, person in enumerate(_structs(image, "annorect")):
            if split == "val" and (image_index, person_index) not in (validation or ()):
                continue
            points = [point for entry in _structs(person, "annopoints") for point in _structs(entry, "point")]
            if points:
                where = f"annotations {path}: annolist({image_index + 1}).annorect({person_index + 1})"
                rows.append(_person(where, str(image.image.name), person, points))
    if not rows:
        raise FasthgError(f"annotations {path}: nobody in split {split!r}; check that it belongs to the list beside it")
    names, center, scale, joints, labelled, visible, head_size = zip(*rows)
    return make_people(names, center, scale, joints, labelled, visible, head_size)


def validation_people(folder: Path) -> set[tuple[int, int]]:
    """Zero-based (image, person) of the 2,958 validation people, from princeton's or bearpaw's file in `folder`."""
    h5 = folder / "valid.h5"
    if h5.exists():
        import h5py

        try:
            with h5py.File(h5, "r") as file:
                return {(int(image), int(person)) for image, person in zip(file["index"][:], file["person"][:])}
        except Exception as error:  # h5py raises whatever its library meets in a damaged file
            raise FasthgError(f"annotations {h5}: not a whole HDF5 file ({error}); copy it again") from None
    for name in ("mpii_annotations.json", "mpii_annotations.json.gz"):
        if (folder / name).exists():
            return _listed(folder / name)
    raise FasthgError(
        f"annotations in {folder}: the release .mat has no validation split; put valid.h5 or mpii_annotations.json"
        " beside it, or read split 'all'"
    )


def _listed(path: Path) -> set[tuple[int, int]]:
    """`validation_people` of bearpaw's list."""
    try:
        records = [record for record in load_json(path) if record["isValidation"]]
        return {(int(record["annolist_index"]) - 1, int(record["people_index"]) - 1) for record in records}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise FasthgError(
            f"annotations {path}: not a list of people with isValidation, annolist_index and people_index; copy it"
        ) from None


def load_published(path: Path, *names: str) -> list[NDArray[np.float64]]:
    """Arrays of a file of the published truth, jnt_missing among them, people first.

    Raises FasthgError that names one of another shape.
    """
    arrays = load_mat(path, *names)
    people = arrays["jnt_missing"].shape[-1]
    for name, array in arrays.items():
        if array.shape != (expected := (*_PUBLISHED[name], people)):
            raise FasthgError(f"{path}: {name} has shape {array.shape}, expected {expected}; copy it again")
    return [np.moveaxis(array, -1, 0) for array in arrays.values()]


def load_mat(path: Path, *names: str) -> dict[str, NDArray[np.float64]]:
    """Arrays of a MATLAB file by their names; raises FasthgError for a damaged file and for one without them."""
    try:
        content = read_mat(path, variable_names=names)
    except Exception as error:  # scipy raises whatever its parser meets in a damaged file
        raise FasthgError(f"{path}: cannot be read as a MATLAB file ({error}); check the name") from None
    return named_arrays(path, content, names)


def named_arrays(path: Path, content: Mapping[str, Any], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """A file's arrays of these names as numbers; raises FasthgError where one is missing or holds something else."""
    if missing := [name for name in names if name not in content]:
        raise FasthgError(f"{path}: no {', '.join(missing)} in the file; it must hold {', '.join(names)}")
    try:
        return {name: np.asarray(content[name], np.float64) for name in names}
    except (TypeError, ValueError):
        raise FasthgError(f"{path}: {', '.join(names)} are not all numbers; copy it again") from None


def _structs(parent: Any, field: str) -> list[Any]:
    """The MATLAB structures in a field: none, one (which scipy unpacks) or an array of them."""
    values = np.atleast_1d(getattr(parent, field, np.empty(0)))
    return [value for value in values.flat if hasattr(value, "_fieldnames")]


def _number(where: str, struct: Any, field: str) -> float:
    value = np.asarray(getattr(struct, field, np.empty(0)))
    if value.size != 1:
        raise FasthgError(f"{where} has no {field!r}")
    return float(value.item())


def _person(where: str, name: str, person: Any, points: list[Any]) -> tuple[Any, ...]:
    """Row of `make_people` for one `annorect`."""
    joints = np.zeros((NUM_JOINTS, 2))
    labelled, visible = np.zeros(NUM_JOINTS, bool), np.zeros(NUM_JOINTS, bool)
    for point in points:
        joint = int(_number(where, point, "id"))
        if not 0 <= joint < NUM_JOINTS:
            raise FasthgError(f"{where}: point id {joint}; joints are 0 to {NUM_JOINTS - 1}")
        joints[joint] = _number(where, point, "x"), _number(where, point, "y")
        labelled[joint] = True
        visible[joint] = _is_visible(getattr(point, "is_visible", ""))
    objpos = _structs(person, "objpos")
    if not objpos:
        raise FasthgError(f"{where} has no 'objpos'")
    center = [_number(where, objpos[0], "x"), _number(where, objpos[0], "y")]
    box: NDArray[np.float64] = np.array([_number(where, person, side) for side in ("x1", "y1", "x2", "y2")])
    return name, center, _number(where, person, "scale"), joints, labelled, visible, float(head_size_of(box))


def _is_visible(value: Any) -> bool:
    """The release writes 0, 1, "0", "1" or nothing; nothing stands at joints that are never hidden (neck and head)."""
    value = np.asarray(value)
    return value.size == 0 or str(value.reshape(-1)[0]) != "0"
