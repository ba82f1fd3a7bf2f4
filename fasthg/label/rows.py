"""What a label is on disk: a row for each person, or a row with the reason why there is none."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasthg.errors import FasthgError
from fasthg.label.items import LIST_SUFFIX
from fasthg.label.places import Place, to_text
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict.formats import FORMATS
from fasthg.predict.predictor import Pose

if TYPE_CHECKING:
    import pyarrow as pa

PART = "part-"  # how the names of the files with rows begin


@dataclass(frozen=True)
class Row:
    """One person of an item, or, where `pose` is None, why nobody could be labelled in `image`.

    Neither says that a range turned out to have no frames.

    item  the item's key
    """

    item: str
    image: str
    pose: Pose | None = None
    reason: str | None = None


def schema() -> pa.Schema:
    """Columns: item, image, frame, time, box [4], whole_image, joints [J][2], scores [J], reason."""
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    return pa.schema(
        [
            ("item", pa.string()),
            ("image", pa.string()),
            ("frame", pa.int64()),
            ("time", pa.float64()),
            ("box", numbers),
            ("whole_image", pa.bool_()),
            ("joints", pa.list_(numbers)),
            ("scores", pa.list_(pa.float32())),
            ("reason", pa.string()),
        ]
    )


def to_parquet(rows: Sequence[Row]) -> bytes:
    """A Parquet file of some rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_record(row) for row in rows], schema()), buffer)
    return buffer.getvalue()


def _record(row: Row) -> dict[str, Any]:
    reason = row.reason and to_text(row.reason)
    record: dict[str, Any] = {"item": row.item, "image": to_text(row.image), "reason": reason}
    if row.pose is not None:
        pose = row.pose
        record |= {"frame": pose.frame, "time": pose.time, "box": list(pose.box), "whole_image": pose.whole_image}
        record |= {"joints": pose.joints.tolist(), "scores": pose.scores.tolist()}
    return record


def parts(out: Place) -> list[Place]:
    """The files of rows that are complete, in the order of their names."""
    return [out.child(name) for name in out.names() if name.startswith(PART) and name.endswith(LIST_SUFFIX)]


def _table(part: Place) -> pa.Table:
    """The rows of a file; raises FasthgError where it is damaged, or holds something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(io.BytesIO(part.read())).select(schema().names)
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise FasthgError(f"{part.where} holds no rows ({reason:.200}); delete it, and they are made again") from None


def read_done(out: Place) -> tuple[frozenset[str], dict[str, set[int]]]:
    """The keys of all items that have rows, and the frames of each image that has some."""
    keys: set[str] = set()
    frames: dict[str, set[int]] = {}
    for part in parts(out):
        table = _table(part)
        keys.update(table["item"].to_pylist())
        table = table.filter(table["frame"].is_valid())
        for image, frame in zip(table["image"].to_pylist(), table["frame"].to_pylist()):
            frames.setdefault(image, set()).add(frame)
    return frozenset(keys), frames


def read_rows(out: Place) -> Iterator[Row]:
    """All rows, file after file."""
    for part in parts(out):
        for record in _table(part).to_pylist():
            yield Row(record["item"], record["image"], _pose(record), record["reason"])


def _pose(record: dict[str, Any]) -> Pose | None:
    if record["joints"] is None:
        return None
    return Pose(
        image=record["image"],
        frame=record["frame"],
        box=tuple(record["box"]),
        whole_image=record["whole_image"],
        joints=np.array(record["joints"], np.float64),
        scores=np.array(record["scores"], np.float32),
        time=record["time"],
    )


def write_coco(out: Place, skeleton: Skeleton) -> Place:
    """COCO's JSON of all poses, beside the parts it is made from; what has a reason has no place in it.

    The same box of the same frame is written by one item alone.
    """
    name, writer = FORMATS["coco"]
    poses: list[Pose] = []
    writers: dict[Any, str] = {}
    for row in read_rows(out):
        if (pose := row.pose) and writers.setdefault((pose.image, pose.frame, pose.box), row.item) == row.item:
            poses.append(pose)
    poses.sort(key=lambda pose: (pose.image, -1 if pose.frame is None else pose.frame))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        writer(file, poses, skeleton, {})
        target = out.child(name)
        target.write(file.read_bytes())
    return target
