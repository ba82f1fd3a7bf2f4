"""Files of predictions and of the truth to score them against.

Predictions are `preds` [N, J, 2] in an HDF5 or MATLAB file, in 1-based pixels (princeton-vl, bearpaw, HRNet), or our
JSON, in continuous pixels of the photograph with the origin at the corner of its top-left pixel:

    {"coordinates": "...", "joint_names": ["rank", ...],
     "predictions": [{"image": "a.jpg", "row": 0, "joints": [[x, y, score], ... J]}, ...]}

`row` is the person's place among the annotated people. Records without it are told by their image, the first of an
image being of its first person; where the truth names no images, they are taken in the order of the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.annotations import read_annotations
from fasthg.data.people import HALF_PIXEL, People, Split, head_size_of, load_json
from fasthg.data.projects import find_format
from fasthg.data.protocols import MPII_PROTOCOLS, Protocol
from fasthg.data.reading import Reading
from fasthg.data.release import load_mat, load_published, named_arrays
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import MPII, Skeleton, check_same_points

COORDINATES = "pixels of the photograph, x to the right and y down, origin at the corner of the top-left pixel"


@dataclass(frozen=True)
class Truth:
    """What predictions of N people are scored against, in continuous pixels."""

    joints: NDArray[np.float64]  # [N, J, 2], NaN where not labelled
    labelled: NDArray[np.bool_]  # [N, J]
    head_size: NDArray[np.float64]  # [N], 0.6 x the diagonal of the head's box; NaN where not known
    scale: NDArray[np.float64]  # [N], the longer side of the box over 200 pixels; NaN where not known
    skeleton: Skeleton = MPII
    protocols: tuple[Protocol, ...] = MPII_PROTOCOLS  # how these people are scored
    images: tuple[str, ...] | None = None  # [N], where the file names them


def predictions_document(
    images: Sequence[str], joints: ArrayLike, scores: ArrayLike, skeleton: Skeleton
) -> dict[str, Any]:
    """The JSON document for joints [N, J, 2] in continuous pixels and scores [N, J]; add to its records at will."""
    with_scores = np.concatenate([np.asarray(joints), np.asarray(scores)[..., None]], axis=-1).round(4)
    records = [{"image": image, "joints": values.tolist()} for image, values in zip(images, with_scores)]
    return {"coordinates": COORDINATES, "joint_names": list(skeleton.names), "predictions": records}


def read_predictions(
    path: str | Path, skeleton: Skeleton = MPII, images: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Predicted joints [N, J, 2] of an `.h5`, `.mat` or `.json` file, in continuous pixels.

    images  of the people who are predicted, to find whom a record of JSON without a `row` is of

    Raises FasthgError that names the file and what is missing, misshapen or NaN.
    """
    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        preds = _arrays_of_h5(path, "preds")["preds"] - HALF_PIXEL
    elif path.suffix == ".mat":
        preds = load_mat(path, "preds")["preds"] - HALF_PIXEL
    elif path.suffix == ".json":
        preds = _predictions_of_json(path, skeleton, images)
    else:
        raise FasthgError(f"predictions {path}: unknown kind of file; give .h5, .mat or .json")
    if preds.ndim != 3 or preds.shape[1:] != (len(skeleton), 2):
        raise FasthgError(f"predictions {path}: shape is {preds.shape}, expected (people, {len(skeleton)}, 2)")
    bad = ~np.isfinite(preds).all(axis=(1, 2))
    if bad.any():
        raise FasthgError(f"predictions {path}: NaN or infinite in row {bad.argmax()} ({bad.sum()} such rows)")
    return preds


def read_truth(path: str | Path, split: Split = "val", reading: Reading | None = None) -> Truth:
    """Truth of MPII's validation people from `detections_our_format.mat`, or from anything that `load_dataset` reads.

    The published `.mat` has 0 for a coordinate of 13 labelled joints that the annotations place elsewhere. It is read
    as it is, because published figures are made with it; scores against the JSON are higher by 0.003.

    `split` picks people of annotations that hold several; head sizes that these lack are looked for beside them. Raises
    FasthgError that names the file and what is missing.
    """
    path = Path(path)
    if find_format(path):
        from fasthg.data.dataset import load_dataset

        dataset = load_dataset(path, split, check_files=False, reading=reading)
        people = dataset.people
        return _truth_of(people, dataset.protocols)
    if path.suffix == ".mat" and not _is_annotations(path):
        joints, missing, boxes = load_published(path, "pos_gt_src", "jnt_missing", "headboxes_src")
        labelled = missing == 0
        return Truth(
            joints=np.where(labelled[..., None], joints - HALF_PIXEL, np.nan),
            labelled=labelled,
            head_size=head_size_of(boxes.reshape(-1, 4)),
            scale=np.full(len(labelled), np.nan),
        )
    from fasthg.data.dataset import protocols_of, with_head_sizes

    people = with_head_sizes(read_annotations(path, split), path.parent, split)
    return _truth_of(people, protocols_of(path))


def _truth_of(people: People, protocols: tuple[Protocol, ...]) -> Truth:
    return Truth(
        *(people.joints, people.labelled, people.head_size, people.scale, people.skeleton, protocols), people.images
    )


def _is_annotations(path: Path) -> bool:
    """Whether a MATLAB file is MPII's release or LSP's, rather than the published truth."""
    import scipy.io

    try:
        return any(name in ("RELEASE", "joints") for name, _shape, _kind in scipy.io.whosmat(path))
    except Exception as error:  # scipy raises whatever its parser meets in a damaged file
        raise FasthgError(f"{path}: cannot be read as a MATLAB file ({error}); check the name") from None


def _arrays_of_h5(path: Path, *names: str) -> dict[str, NDArray[np.float64]]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            content = {name: file[name][()] for name in names if name in file}
    except Exception as error:  # h5py raises whatever its library meets in a damaged file
        raise FasthgError(f"{path}: cannot be read as an HDF5 file ({error}); check the name") from None
    return named_arrays(path, content, names)


def _predictions_of_json(path: Path, skeleton: Skeleton, images: Sequence[str] | None) -> NDArray[np.float64]:
    document = load_json(path)
    records = document.get("predictions") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records:
        raise FasthgError(f"predictions {path}: no list 'predictions'; give the file that `fasthg predict` writes")
    try:
        joints = np.array([record["joints"] for record in records], np.float64)
        rows = [record.get("row", i) for i, record in enumerate(records)]
        if images and len(images) == len(records) and all("image" in r and "row" not in r for r in records):
            rows = _rows_by_image(path, [str(record["image"]) for record in records], images)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FasthgError(
            f"predictions {path}: a record lacks 'joints' of {len(skeleton)} x [x, y, score] ({error})"
        ) from None
    if joints.ndim != 3:
        raise FasthgError(f"predictions {path}: 'joints' have shape {joints.shape[1:]}, expected ({len(skeleton)}, 3)")
    names = document.get("joint_names", list(skeleton.names))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FasthgError(f"predictions {path}: 'joint_names' is {names!r:.60}, no list of names; correct it")
    check_same_points(f"predictions {path}", Skeleton("in the file", tuple(names)), skeleton)
    if not all(isinstance(row, (int, float)) for row in rows) or sorted(rows) != list(range(len(rows))):
        raise FasthgError(
            f"predictions {path}: the rows of its {len(rows)} records are not 0 to {len(rows) - 1}, once each"
        )
    return joints[np.argsort(rows), :, :2]


def _rows_by_image(path: Path, predicted: Sequence[str], images: Sequence[str]) -> list[int]:
    """For each predicted image the row of its next person; it is told by its path's end, else by its name alone."""
    rows_of, called = defaultdict[str, list[int]](list), defaultdict[str, set[str]](set)
    for row, image in enumerate(images):
        rows_of[image].append(row)
        called[Path(image).name].add(image)
    known = {name: image for name, (image, *others) in called.items() if not others} | {name: name for name in rows_of}
    rows, taken = [], Counter[str]()
    for image in predicted:
        parts = Path(image).parts
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        found = next((known[end] for end in ends if end in known), "")
        if taken[found] == len(rows_of[found]):
            listed = f"has {taken[found]} people in the truth, and more here" if found else "is none of the truth's"
            raise FasthgError(f"predictions {path}: image {image!r} {listed}; correct it, or give records their 'row'")
        rows.append(rows_of[found][taken[found]])
        taken[found] += 1
    return rows
