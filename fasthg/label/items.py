"""What is labelled: photographs, folders, globs, Parquet lists of paths with boxes, and videos in ranges of frames.

Photographs are told from names where those say it, so that millions are listed in seconds, and else, as `predict`
does, by their content.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fasthg.errors import FasthgError
from fasthg.label.places import Place, glob, to_text
from fasthg.predict.boxes import check_boxes
from fasthg.predict.sources import IMAGE_SUFFIXES, is_picture, read_start
from fasthg.predict.video import count_packets

Box = tuple[float, float, float, float]  # x, y, width, height in pixels
LIST_SUFFIX = ".parquet"
_GLOB = set("*?[")


@dataclass(frozen=True)
class Item:
    """One thing to label.

    path    of a photograph or video, or its address
    boxes   of its people; None where the whole image is one person
    start   first frame of a range of a video, None for a photograph
    stop    the frame after the range, None where nothing tells it
    last    whether the range takes whatever comes behind `stop`, too
    """

    path: str
    boxes: tuple[Box, ...] | None = None
    start: int | None = None
    stop: int | None = None
    last: bool = False

    @property
    def key(self) -> str:
        """16 hexadecimal digits that are the item's alone, by which a restart knows what is done."""
        content = [self.path, self.boxes, self.start, self.stop]
        return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Pictures that it has, as far as it is known."""
        return 1 if self.start is None or self.stop is None else self.stop - self.start


@dataclass(frozen=True)
class Block:
    """Items that are labelled together and kept in one file, whose name they decide."""

    items: tuple[Item, ...]
    name: str


def list_items(sources: Sequence[str], frames: int, out: Place | None = None) -> list[Item]:
    """The items of sources in their order, each once; videos in ranges of `frames`; nothing of the folder `out`.

    Raises FasthgError that names a source that does not exist or holds nothing to label.
    """
    found: dict[Item, None] = {}
    for source in map(str, sources):
        if out is not None and out.holds(source):
            continue
        items = list(_of_source(source, frames, out))
        if not items:
            raise FasthgError(f"{source} holds nothing to label; give photographs, folders, globs, videos or lists")
        found |= dict.fromkeys(items)
    if not found:
        raise FasthgError("nothing to label; give photographs, folders, globs, videos or Parquet lists")
    return list(found)


def without_frames(items: Sequence[Item], done: frozenset[str], held: Mapping[str, set[int]]) -> list[Item]:
    """The items; ranges that are not `done` lose the frames that the rows of their path hold already.

    A video that has grown has them: the range that was its last one took all that came.
    """
    kept = []
    for item in items:
        frames = held.get(to_text(item.path))
        if item.start is None or item.stop is None or item.key in done or not frames:
            kept.append(item)
            continue
        end = max(item.stop, max(frames) + 1) if item.last else item.stop
        start = next((number + 1 for number in reversed(range(item.start, end)) if number in frames), item.start)
        if start < item.stop:
            kept.append(replace(item, start=start))
    return kept


def cut_blocks(items: Sequence[Item], size: int, done: frozenset[str] = frozenset()) -> Iterator[Block]:
    """Blocks of about `size` pictures, without the items whose keys are `done`.

    They are cut from all items, so that a block that is not begun has the same name in every run.
    """
    block: list[Item] = []
    pictures = 0
    for item in items:
        block.append(item)
        pictures += item.size
        if pictures >= size:
            yield from _left(block, done)
            block, pictures = [], 0
    yield from _left(block, done)


def _left(block: list[Item], done: frozenset[str]) -> Iterator[Block]:
    left = tuple(item for item in block if item.key not in done)
    if left:
        name = hashlib.sha256("".join(item.key for item in left).encode()).hexdigest()[:16]
        yield Block(left, f"part-{name}.parquet")


def _of_source(source: str, frames: int, out: Place | None) -> Iterator[Item]:
    place = Place(source)
    kind = place.kind()
    if not kind and _GLOB & set(source):
        for path in glob(source):
            if out is None or not out.holds(path):
                yield from _of_file(path, frames)
    elif kind == "folder":
        base = source.rstrip("/") or "/"
        for name in place.names():
            if not name.startswith(".") and _suffix(name) in IMAGE_SUFFIXES:
                yield Item(base + "/" + name if base != "/" else base + name)
    elif kind == "file":
        yield from _of_file(source, frames)
    else:
        raise FasthgError(f"{source} does not exist; give photographs, folders, globs, videos or Parquet lists")


def _of_file(path: str, frames: int) -> Iterator[Item]:
    if _suffix(path) == LIST_SUFFIX:
        yield from read_list(path)
    elif _suffix(path) in IMAGE_SUFFIXES or not Place(path).is_local or _is_picture(Path(path)):
        yield Item(path)
    else:
        yield from _ranges(path, frames)


def _is_picture(path: Path) -> bool:
    try:
        return is_picture(path, read_start(path))
    except FasthgError:  # whoever reads it will say why
        return True


def _ranges(path: str, frames: int) -> Iterator[Item]:
    """A video in ranges, the last of which takes whatever comes; one that cannot be opened is an item with a reason."""
    try:
        count = count_packets(Path(path))  # what it announces may be far off
    except FasthgError:
        count = 0
    for start in range(0, count, frames):
        yield Item(path, None, start, min(start + frames, count), last=start + frames >= count)
    if count == 0:
        yield Item(path, None, 0, None, last=True)


def read_list(path: str) -> Iterator[Item]:
    """The photographs of a Parquet list: a column `path`, and for boxes x, y, w, h in pixels, one person a row.

    Rows of one photograph may stand anywhere; without the four columns, or where all are null, the whole image is one
    person. Raises FasthgError that names the column or the row that is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(Place(path).read()))
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise FasthgError(f"{path} is not a whole Parquet file ({reason}); write it again") from None
    corners = [name for name in ("x", "y", "w", "h") if name in table.column_names]
    if "path" not in table.column_names or len(corners) not in (0, 4):
        raise FasthgError(f"{path} has columns {', '.join(table.column_names)}; give path, or path, x, y, w and h")
    people: dict[str, list[Box]] = {}
    for number, row in enumerate(table.select(["path", *corners]).to_pylist()):
        if not isinstance(row["path"], str):
            raise FasthgError(f"{path}: row {number} has no path; give each row one")
        boxes = people.setdefault(row["path"], [])
        values = [row[name] for name in corners]
        if any(value is not None for value in values):
            box = check_boxes([[float("nan") if value is None else value for value in values]], f"{path}: row {number}")
            boxes.append(tuple(map(float, box[0])))  # type: ignore[arg-type]
    for name, boxes in people.items():
        yield Item(name, tuple(boxes) or None)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
