"""A folder of photographs with their people's annotations, checked before anything is computed from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.annotations import read_annotations
from fasthg.data.lsp import JOINTS_FILE, is_lsp
from fasthg.data.people import PERSON_HEIGHT, People, Split, head_size_of
from fasthg.data.projects import find_format, looked_for
from fasthg.data.protocols import BOX_PROTOCOLS, IMAGE_PROTOCOLS, LSP_PROTOCOLS, MPII_PROTOCOLS, Protocol
from fasthg.data.reading import Labels, Reading, hold_out
from fasthg.data.release import load_published
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import MPII, Skeleton

ANNOTATION_FILES = (
    "annotations.json",
    "mpii_annotations.json",
    "mpii_annotations.json.gz",
    "mpii_human_pose_v1_u12_1.mat",
    JOINTS_FILE,
)
#: A file for each split, in `annot/` beside `images/`: the layout of HRNet, mmpose and princeton-vl.
SPLIT_FILES = {"train": ("train.json", "train.h5"), "val": ("valid.json", "valid.h5")}
HEAD_FILES = ("detections_our_format.mat", "gt_valid.mat", "valid.h5")


@dataclass(frozen=True)
class Dataset:
    """People, the folder of their photographs, and the protocols that score them, the dataset's own first.

    `summary` says what a project's reader found, for its user to confirm.
    """

    people: People
    image_dir: Path
    annotations: Path = field(default=Path())
    protocols: tuple[Protocol, ...] = MPII_PROTOCOLS
    summary: str = ""

    def __len__(self) -> int:
        return len(self.people)

    def image_path(self, row: int) -> Path:
        """Photograph of person `row`."""
        return self.image_dir / self.people.images[row]

    @property
    def protocol(self) -> Protocol:
        """The dataset's own way of scoring."""
        return self.protocols[0]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """What each person's errors are divided by, [N] pixels; NaN where it is not known."""
        return self.protocol.measure(self.people)

    def select(self, rows: ArrayLike) -> Dataset:
        """The people of an index or bool array, in its order."""
        return replace(self, people=self.people.select(rows))

    def under(self, skeleton: Skeleton) -> Dataset:
        """The same people under another skeleton's points, without those who have none of them; see `People.under`."""
        if self.people.skeleton.names == skeleton.names:
            return self
        people = self.people.under(skeleton)
        return replace(self, people=people.select(people.labelled.any(axis=1)))

    @cached_property
    def digest(self) -> str:
        """Identity of the annotations: 16 hexadecimal digits, the same wherever the folder lies."""
        people, digest = self.people, hashlib.sha256()
        digest.update("\n".join(people.images).encode())
        for array in (people.center, people.scale, people.joints, people.labelled, people.head_size):
            digest.update(np.ascontiguousarray(array).tobytes())
        if people.skeleton != MPII:
            digest.update(repr(people.skeleton).encode())
        return digest.hexdigest()[:16]


def load_dataset(
    data_dir: str | Path, split: Split, check_files: bool = True, reading: Reading | None = None
) -> Dataset:
    """Dataset in `data_dir`: `images/` beside `annotations.json` (bearpaw's), MPII's own files, LSP's or `annot/`, or a
    labelled project of another tool (`fasthg.data.projects`), which `reading` says more of.

    `data_dir` may also be an annotation file of any format, with `images/` beside it. Head sizes that the annotations
    lack are taken from `detections_our_format.mat`, `gt_valid.mat` or `valid.h5` beside them (validation people only).

    Raises FasthgError that names a missing folder, file or photograph, an empty split and unusable boxes. `check_files`
    looks for every photograph.
    """
    data_dir = Path(data_dir)
    if project := find_format(data_dir):
        dataset = _of_project(project.read(data_dir, reading or Reading()), split, reading or Reading())
        if check_files:
            check_images(dataset)
        return dataset
    annotations = data_dir if data_dir.is_file() else find_annotations(data_dir, split)
    people = with_head_sizes(read_annotations(annotations, split), annotations.parent, split)
    if not len(people):
        raise FasthgError(f"data {annotations}: split {split!r} is empty; choose another split or file")
    beside = annotations.parent.parent if annotations.parent.name == "annot" else annotations.parent
    dataset = Dataset(people, beside / "images", annotations, protocols_of(annotations))
    if check_files:
        check_images(dataset)
    return dataset


def _of_project(labels: Labels, split: Split, reading: Reading) -> Dataset:
    """A split of what a project's reader found."""
    held_out, how = labels.held_out, "as its files say"
    if held_out is None:
        held_out, how = hold_out(labels.people.images, reading.holdout)
    rows = {"train": ~held_out, "val": held_out, "all": np.ones_like(held_out)}[split]
    if not rows.any():
        raise FasthgError(f"data {labels.annotations}: split {split!r} is empty; choose another split or --holdout")
    protocols = IMAGE_PROTOCOLS if labels.whole_images else BOX_PROTOCOLS
    people, summary = labels.people.select(rows), labels.summary(held_out, how)
    return Dataset(people, labels.image_dir, labels.files.get(split, labels.annotations), protocols, summary)


def protocols_of(annotations: Path) -> tuple[Protocol, ...]:
    """How the people of an annotation file are scored."""
    return LSP_PROTOCOLS if is_lsp(annotations) else MPII_PROTOCOLS


def find_people(dataset: Dataset, others: Dataset) -> NDArray[np.bool_]:
    """Which people of `dataset` are among `others`, bool [N]: in the same photograph, their annotated centres nearer
    to each other than a tenth of the person's height.
    """
    centers: dict[Path, list[NDArray[np.float64]]] = {}
    for row, center in enumerate(others.people.center):
        centers.setdefault(others.image_path(row).resolve(), []).append(center)
    found = np.zeros(len(dataset), bool)
    for row, (center, scale) in enumerate(zip(dataset.people.center, dataset.people.scale)):
        there = centers.get(dataset.image_path(row).resolve(), [])
        found[row] = any(np.linalg.norm(center - other) < 0.1 * PERSON_HEIGHT * scale for other in there)
    return found


def find_annotations(data_dir: Path, split: Split = "all") -> Path:
    """The annotation file of a split in a folder; raises FasthgError where there is none."""
    if not data_dir.is_dir():
        raise FasthgError(f"data {data_dir}: no such folder; render one with `python -m training.synthesize --out DIR`")
    of_split = SPLIT_FILES.get(split, ())
    for name in (*ANNOTATION_FILES, *(f"annot/{name}" for name in of_split), *of_split):
        if (data_dir / name).is_file():
            return data_dir / name
    raise FasthgError(
        f"data {data_dir}: none of {', '.join(ANNOTATION_FILES)} is in the folder, nor annot/ with"
        f" {' or '.join(of_split) or 'a split'}; nor {looked_for()}"
    )


def files_read(dataset: Dataset) -> list[Path]:
    """The files that a dataset is read from, as far as their names are known: no command writes to one of them."""
    beside = dataset.annotations if dataset.annotations.is_dir() else dataset.annotations.parent
    labels = [beside / name for name in (*ANNOTATION_FILES, *HEAD_FILES)] + list(beside.rglob("CollectedData*"))
    return [dataset.annotations, *labels, *(dataset.image_dir / name for name in dict.fromkeys(dataset.people.images))]


def check_images(dataset: Dataset) -> None:
    """Raise FasthgError where the folder of photographs, or one of them, is missing."""
    if not dataset.image_dir.is_dir():
        raise FasthgError(f"data {dataset.image_dir}: no such folder; the photographs belong there")
    names = dict.fromkeys(dataset.people.images)
    missing = [name for name in names if not (dataset.image_dir / name).is_file()]
    if missing:
        raise FasthgError(
            f"data {dataset.image_dir}: {len(missing)} of {len(names)} photographs are missing,"
            f" the first is {missing[0]}; copy them there"
        )


def with_head_sizes(people: People, folder: Path, split: Split) -> People:
    """The people with the head sizes of a file in `folder`, where they are not known and such a file is there.

    Those files hold the validation people in the order of bearpaw's JSON; nothing is taken for other splits.
    """
    if split != "val" or not np.isnan(people.head_size).all():
        return people
    source = next((folder / name for name in HEAD_FILES if (folder / name).is_file()), None)
    if source is None:
        return people
    head_size, labelled = _read_heads(source)
    if labelled.shape != people.labelled.shape or (labelled != people.labelled).any():
        raise FasthgError(
            f"data {source}: its {len(labelled)} people are not the {len(people)} of the annotations, row by row;"
            " head sizes cannot be taken from it"
        )
    return replace(people, head_size=head_size)


def _read_heads(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Head sizes [N] and labelled joints [N, J] of a validation file."""
    if path.suffix == ".h5":
        people = read_annotations(path)
        return people.head_size, people.labelled
    boxes, missing = load_published(path, "headboxes_src", "jnt_missing")
    return head_size_of(boxes.reshape(-1, 4)), missing == 0
