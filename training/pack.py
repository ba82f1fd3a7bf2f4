"""Pack the people of a dataset as small JPEG crops with room for the augmentation.

    python -m training.pack --data DIR --out crops.h5

The crops decode several times faster than the photographs. `training/loading/packed.py` describes the file and reads
it. What is done is kept in a journal beside the file until it is whole, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fasthg.ahead import map_ahead
from fasthg.console import note, progress_bar, run_command
from fasthg.data.dataset import Dataset, files_read, load_dataset
from fasthg.data.people import ARRAYS, People, Split
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.files import atomic_path, check_new, check_room
from fasthg.pixels import geometry
from fasthg.pixels.image import read_image
from training.loading.augment import Augmentation
from training.loading.checks import check_boxes
from training.loading.journal import NO_PIECE, Journal
from training.loading.packed import FORMAT, VERSION, table_digest

if TYPE_CHECKING:
    import h5py

# The stored crops: side in box sides (the last is the full reach) and pixel density as a share of the settings'. Under
# the usual augmentation the three serve about 3, 5 and 2 draws of ten.
_VIEWS = ((1.02, 1.2), (1.25, 1.05), (math.inf, 0.95))
_PERSON_BYTES, _FILE_BYTES = 4096, 1 << 19  # of a packed file beside its crops, at most
_BLOCK = 8  # pixels: a side that is a multiple of a JPEG's coding unit wastes nothing


@dataclass(frozen=True)
class PackSettings:
    """How crops are stored.

    density  pixels for one box side, the side of an unaugmented crop: the mean, from which the stored crops' differ
    reach    side of the largest crop in box sides, see `Augmentation.reach`
    quality  of the JPEGs, whose colour has the full resolution: at equal length that is nearer to the photograph than a
             higher quality with halved colour
    """

    density: int = 256
    reach: float = Augmentation().reach
    quality: int = 86

    def __post_init__(self) -> None:
        if not 16 <= self.density <= 4096:
            raise FasthgError(f"density is {self.density}; give 16 to 4096 pixels for a box side")
        if not 1.0 <= self.reach <= 16.0:
            raise FasthgError(f"reach is {self.reach}; give 1 to 16 box sides")
        if not 1 <= self.quality <= 100:
            raise FasthgError(f"quality is {self.quality}; give 1 to 100")

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the stored crops in pixels, from small to large."""
        return tuple(_BLOCK * math.ceil(density * reach / _BLOCK) for reach, density in self._views)

    @property
    def _views(self) -> list[tuple[float, float]]:
        """Side in box sides and pixels for a box side of each stored crop."""
        inner = [(reach, self.density * share) for reach, share in _VIEWS[:-1] if reach < self.reach]
        return [*inner, (self.reach, self.density * _VIEWS[-1][1])]

    def matrices(self, people: People) -> NDArray[np.float64]:
        """Photograph -> stored crops, [N,V,2,3]."""
        views = [
            geometry.crop_matrix(people.center, people.scale, side, zoom=side / density)
            for side, (_, density) in zip(self.sides, self._views)
        ]
        return np.stack(views, axis=1)


def pack(
    data: str | Path,
    out: str | Path,
    splits: Sequence[Split] = ("train", "val"),
    settings: PackSettings | None = None,
    *,
    skip_bad: int = 0,
    threads: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    reading: Reading | None = None,
) -> Path:
    """Pack the splits of the dataset in `data`, which `reading` says more of, into the file `out`; returns its path.

    Up to `skip_bad` people whose photograph cannot be read are packed without a crop and reported; `threads` defaults
    to one for each usable core; an earlier file is replaced with `overwrite`. Raises FasthgError for a dataset that
    cannot be used, for one unreadable photograph too many, and when the output cannot be written.
    """
    settings = settings or PackSettings()
    import simplejpeg  # noqa: F401  before hours of work

    out = Path(out)
    datasets = {split: load_dataset(data, split, reading=reading) for split in splits}
    listed = [Path(reading.holdout)] if reading else []  # a file, unless it is a rule
    for dataset in datasets.values():
        check_boxes(dataset)
        check_new(out, [*files_read(dataset), *listed], overwrite)
    identity = {**asdict(settings), "splits": {split: dataset.digest for split, dataset in datasets.items()}}
    with Journal(out.with_name(f"{out.name}.journal"), identity) as journal:
        photographs = list(_missing(datasets, settings, journal))
        _encode(photographs, settings, journal, skip_bad, threads or len(os.sched_getaffinity(0)), progress)
        _write(out, datasets, settings, journal)
    return out


@dataclass(frozen=True)
class _Photograph:
    """One photograph, and photograph -> stored crops [V,2,3] of the people on it, each by its number in the file."""

    path: Path
    people: dict[int, NDArray[np.float64]]


def _missing(datasets: dict[Split, Dataset], settings: PackSettings, journal: Journal) -> Iterator[_Photograph]:
    """The photographs with people that the journal lacks.

    People are numbered through all splits; view v of person n is piece `n * V + v` of the journal.
    """
    numbers = iter(range(sum(map(len, datasets.values()))))
    for dataset in datasets.values():
        by_path: dict[Path, dict[int, NDArray[np.float64]]] = {}
        for row, matrices in enumerate(settings.matrices(dataset.people)):
            number = next(numbers)
            keys = range(number * len(matrices), (number + 1) * len(matrices))
            if not journal.pieces.keys() >= set(keys):
                by_path.setdefault(dataset.image_path(row), {})[number] = matrices
        yield from (_Photograph(path, people) for path, people in by_path.items())


def _encode(
    photographs: list[_Photograph],
    settings: PackSettings,
    journal: Journal,
    skip_bad: int,
    threads: int,
    progress: bool,
) -> None:
    """Put the crops of all people on the photographs into the journal."""

    def crops(photograph: _Photograph) -> dict[int, list[bytes]] | FasthgError:
        try:
            image = read_image(photograph.path)
        except FasthgError as error:
            return error
        return {number: _jpegs(image, matrices, settings) for number, matrices in photograph.people.items()}

    bad, total = 0, sum(len(photograph.people) for photograph in photographs)
    with progress_bar() as bar:
        task = bar.add_task("packing", total=total, visible=progress)
        for photograph, made in zip(photographs, map_ahead(crops, photographs, threads)):
            if isinstance(made, FasthgError):
                bad += len(photograph.people)
                if bad > skip_bad:
                    raise FasthgError(f"{made}; or pack without it: {bad} people need skip_bad {bad} or more")
                note(f"{len(photograph.people)} people packed without a crop: {made}")
                continue
            for number, jpegs in made.items():
                for view, jpeg in enumerate(jpegs):
                    journal.append(number * len(jpegs) + view, jpeg)
            bar.advance(task, len(photograph.people))


def _jpegs(image: NDArray[np.uint8], matrices: NDArray[np.float64], settings: PackSettings) -> list[bytes]:

    crops = (_resample(image, matrix, side) for matrix, side in zip(matrices, settings.sides))
    import simplejpeg

    encode = simplejpeg.encode_jpeg
    return [encode(crop, settings.quality, "RGB", colorsubsampling="444") for crop in crops]


def _resample(image: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """Crop [side,side,3] under a map [2,3] that does not turn, by Lanczos: finer detail than a pixel does not alias."""
    from PIL import Image

    (left, top), (right, bottom) = geometry.apply(geometry.invert(matrix), np.array([[0.0, 0.0], [side, side]]))
    margin = 4 * math.ceil((right - left) / side)  # pixels: Lanczos looks three pixels of the crop far
    x, y = math.floor(left) - margin, math.floor(top) - margin
    corner = Image.fromarray(image).crop((x, y, math.ceil(right) + margin, math.ceil(bottom) + margin))
    crop = corner.resize((side, side), Image.Resampling.LANCZOS, box=(left - x, top - y, right - x, bottom - y))
    return np.asarray(crop)


def _write(out: Path, datasets: dict[Split, Dataset], settings: PackSettings, journal: Journal) -> None:
    """The packed file, with the people in the order of their numbers."""
    import h5py

    num_people, views = sum(map(len, datasets.values())), len(settings.sides)
    pieces = [journal.pieces.get(key, NO_PIECE) for key in range(num_people * views)]
    length = np.array([piece.length for piece in pieces], np.int64)
    crc32 = np.array([piece.crc32 for piece in pieces], np.int64)
    offset = np.cumsum(length) - length
    # HDF5 ends the process where the disk fills up, after it has said so: the room is asked for before.
    check_room(out, int(length.sum()) + num_people * _PERSON_BYTES + _FILE_BYTES)
    with atomic_path(out) as aside, h5py.File(aside, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, sides=settings.sides, **asdict(settings))
        first = 0
        for split, dataset in datasets.items():
            rows = slice(first, first := first + len(dataset))
            table = file.create_group(split)
            _write_people(table, dataset.people)
            table["matrix"] = settings.matrices(dataset.people)
            for name, values in (("offset", offset), ("length", length), ("crc32", crc32)):
                table[name] = values.reshape(num_people, views)[rows]
        file.attrs["digest"] = table_digest(file)
        blob = file.create_dataset("jpeg", shape=(int(length.sum()),), dtype=np.uint8)
        for key in journal.pieces:
            blob[offset[key] : offset[key] + length[key]] = np.frombuffer(journal.read(key), np.uint8)


def _write_people(table: h5py.Group, people: People) -> None:
    table["images"] = np.array([name.encode() for name in people.images])
    for name in ARRAYS:
        table[name] = getattr(people, name)
    table.attrs["skeleton"] = json.dumps(asdict(people.skeleton))


def _command(
    data: Annotated[Path, typer.Option(help="folder of the dataset, or an annotation file beside images/")],
    out: Annotated[Path, typer.Option(help="packed file to write, such as crops.h5")],
    split: Annotated[list[str] | None, typer.Option(help="train, val or all [default: train and val]")] = None,
    density: Annotated[int, typer.Option(help="pixels for one side of a person's box")] = PackSettings.density,
    reach: Annotated[float, typer.Option(help="side of the stored crops in box sides")] = PackSettings.reach,
    quality: Annotated[int, typer.Option(help="of the JPEGs, 1 to 100")] = PackSettings.quality,
    skip_bad: Annotated[int, typer.Option(help="people that may lack a crop because their photograph is bad")] = 0,
    threads: Annotated[int | None, typer.Option(help="default: one for each usable core")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier file; never an input")] = False,
    category: Annotated[str | None, typer.Option(help="as training is given it")] = Reading.category,
    holdout: Annotated[str, typer.Option(help="as training is given it")] = Reading.holdout,
    pairs: Annotated[str | None, typer.Option(help="as training is given them")] = Reading.pairs,
) -> None:
    """Pack the people of a dataset as JPEG crops with room for the augmentation."""
    splits = [_split(name) for name in split or ("train", "val")]
    settings = PackSettings(density, reach, quality)
    reading = Reading(category, holdout, pairs)
    pack(data, out, splits, settings, skip_bad=skip_bad, threads=threads, overwrite=overwrite, reading=reading)
    note(f"packed into {out}, {out.stat().st_size / 2**20:.1f} MiB")


def _split(name: str) -> Split:
    splits: dict[str, Split] = {"train": "train", "val": "val", "all": "all"}
    if name not in splits:
        raise FasthgError(f"split is {name!r}; choose train, val or all")
    return splits[name]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(_command, argv, "python -m training.pack")


if __name__ == "__main__":
    sys.exit(main())
