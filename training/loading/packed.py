"""Reading packed crops: one HDF5 file of JPEG crops, with room for the augmentation, and their annotations.

    /          attributes: format, version, density, reach, quality, sides [V], digest (SHA-256 of all but the JPEGs)
    /jpeg      uint8 [bytes], contiguous: the JPEGs one after another
    /SPLIT     "train", "val" or "all": the table of people, one entry a row
        images, center, scale, joints, labelled, visible, head_size      as in `fasthg.data.people.People`
        attribute skeleton                                               JSON of the Skeleton; MPII's where absent
        matrix                   float64 [N,V,2,3], photograph -> stored crop
        offset, length, crc32    int64 [N,V], where the JPEG of a stored crop lies in /jpeg, and its checksum; length 0
                                 where the photograph could not be read when it was packed

A person has V square crops around the box's centre, from small to large. The largest has room for every crop that the
augmentation can ask for. A smaller one decodes faster and has finer pixels, because crops that need little room are
magnified most.

Because /jpeg is contiguous, a crop is one `pread` at a known place of the file: no lock of the HDF5 library, no shared
file position, so threads, forked workers and ranks read side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthg.data.people import ARRAYS, People, Split
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import MPII, Skeleton
from training.loading.augment import Augmentation
from training.loading.batches import LoaderOptions
from training.loading.loader import Loader, ThreadLoader

if TYPE_CHECKING:
    import h5py

FORMAT, VERSION = "fasthg crops", 2


class PackIndex(NamedTuple):
    """Where the JPEGs of each row lie, [N,V,...]; see the module's docstring."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    crc32: NDArray[np.int64]


class PackedSource:
    """The people of one split of a packed file and their crops, as a `training.loading.batches.Source`.

    Raises FasthgError that names a file that is missing, damaged, cut short, of another format or without the split.
    """

    def __init__(self, path: str | Path, split: Split = "train") -> None:
        self.path = Path(path)
        self.people, self._index, self._start, self.sides, self.reach = _open(self.path, split)
        self._descriptor = os.open(self.path, os.O_RDONLY)
        import simplejpeg

        self._decode = simplejpeg.decode_jpeg

    def __len__(self) -> int:
        return len(self.people)

    def choose_views(
        self, rows: NDArray[np.int64], matrices: NDArray[np.float64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The smallest stored crop that holds the whole crop, else the largest."""
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
        stored = self._index.matrix[rows]
        from_stored = geometry.compose(matrices[:, None], geometry.invert(stored))
        middle = self.sides[:, None, None] / 2
        reached = np.abs(geometry.apply(geometry.invert(from_stored), corners) - middle)
        too_small = (reached > middle).any(axis=(-2, -1))
        views = np.minimum(too_small.sum(axis=1), len(self.sides) - 1)
        return views, from_stored[np.arange(len(rows)), views]

    def read_encoded(self, row: int, view: int) -> bytes:
        """The JPEG of a stored crop, checked; raises FasthgError that names the file and the photograph."""
        length = int(self._index.length[row, view])
        if not length:
            raise FasthgError(f"{self._name(row)} could not be read when it was packed; restore it and pack again")
        data = os.pread(self._descriptor, length, self._start + int(self._index.offset[row, view]))
        if zlib.crc32(data) != self._index.crc32[row, view]:
            raise FasthgError(f"{self._name(row)} is damaged in the file; pack it again")
        return data

    def read(self, row: int, view: int) -> NDArray[np.uint8]:
        """Stored crop as [side,side,4] RGBX: four channels decode as fast as three and a pixel is one word."""
        return self._decode(self.read_encoded(row, view), colorspace="RGBX")

    def check_reach(self, augmentation: Augmentation) -> None:
        """Raise FasthgError where the augmentation can ask for more of the photograph than is stored."""
        if augmentation.reach > self.reach:
            raise FasthgError(
                f"packed crops {self.path}: {self.reach:.3f} box sides are stored, the augmentation reaches for"
                f" {augmentation.reach:.3f}; pack again with reach {augmentation.reach:.3f}, or augment less"
            )

    def _name(self, row: int) -> str:
        return f"packed crops {self.path}: {self.people.images[row]}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def make_packed_loader(path: str | Path, split: Split = "train", **options: Any) -> Loader:
    """Loader of a packed file on `num_workers` threads; the keywords are the fields of `LoaderOptions`.

    Raises FasthgError for a file that cannot be used, and for an augmentation that reaches beyond the stored crops.
    """
    source, chosen = PackedSource(path, split), LoaderOptions(**options)
    source.check_reach(chosen.augmentation)
    return ThreadLoader(source, chosen)


def table_digest(file: h5py.File) -> str:
    """SHA-256 of the attributes and tables of an open file: of all but the JPEGs, which have a checksum each."""
    digest = hashlib.sha256()
    for name in ("format", "version", "density", "reach", "quality", "sides"):
        digest.update(f"{name}={file.attrs[name]}\n".encode())
    for split in sorted(name for name in file if name != "jpeg"):
        for name in sorted(file[split]):
            digest.update(f"{split}/{name}".encode())
            digest.update(np.ascontiguousarray(file[split][name][()]).tobytes())
        digest.update(file[split].attrs.get("skeleton", "").encode())
    return digest.hexdigest()


def pack_digest(path: str | Path) -> str:
    """The digest in a packed file that has been opened before, and so was found whole."""
    import h5py

    with h5py.File(path, "r") as file:
        return str(file.attrs["digest"])


def _open(path: Path, split: str) -> tuple[People, PackIndex, int, NDArray[np.int64], float]:
    """People, index, the byte at which /jpeg starts, sides of the stored crops in pixels, reach in box sides."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _check(path, file, split)
            table = file[split]
            arrays = {name: table[name][()] for name in ARRAYS}
            skeleton = Skeleton.from_dict(json.loads(table.attrs["skeleton"])) if "skeleton" in table.attrs else MPII
            people = People(tuple(name.decode() for name in table["images"][()]), **arrays, skeleton=skeleton)
            index = PackIndex(*(table[name][()] for name in PackIndex._fields))
            start, sides = file["jpeg"].id.get_offset(), np.asarray(file.attrs["sides"], np.int64)
            return people, index, start, sides, float(file.attrs["reach"])
    except FileNotFoundError:
        raise FasthgError(f"packed crops {path}: no such file; make it with `python -m training.pack`") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise FasthgError(f"packed crops {path}: damaged or cut short ({error}); pack again") from None


def _check(path: Path, file: h5py.File, split: str) -> None:
    if file.attrs.get("format") != FORMAT:
        raise FasthgError(f"packed crops {path}: an HDF5 file of another kind; make one with `python -m training.pack`")
    if file.attrs["version"] != VERSION:
        raise FasthgError(f"packed crops {path}: version {file.attrs['version']}, read is {VERSION}; pack again")
    if table_digest(file) != file.attrs["digest"]:
        raise FasthgError(f"packed crops {path}: the tables do not match their digest; pack again")
    if split not in file:
        held = ", ".join(sorted(name for name in file if name != "jpeg"))
        raise FasthgError(f"packed crops {path}: holds no split {split!r}, only {held}; choose one of them")
