"""Writing files so that nobody ever sees half of one, and naming them by their digest.

Everything is written aside under a temporary name in the same folder and moved into place by `os.replace` once it is
whole; whatever goes wrong in between (an error, Ctrl-C, a full disk) leaves the old file, or none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from fasthg.errors import FasthgError

log = logging.getLogger("fasthg")

#: What the operating system says when it is the place that cannot be written, not the content that is wrong.
_PLACE_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than allowed here; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write",
    errno.EPERM: "permission denied; choose a folder that you may write",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file of that name is in the way; choose another folder",
    errno.EISDIR: "a folder of that name is in the way; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
_SHOWN = 40  # characters of a file's name in that of the temporary one, which may not be too long for the disk
_MARKER = "metadata.json"  # of a folder that was written as a whole
_FULL = 1 << 16  # bytes left on a disk below which a failed write is put down to the disk


def default_cache_dir() -> Path | None:
    """Where fetched, converted and compiled networks are kept: $FASTHG_CACHE, else fasthg/ in the user's cache folder.

    None where the user has no home, or where the folder cannot be written, which is said once: a cache saves time, and
    everything runs without one.
    """
    if chosen := os.environ.get("FASTHG_CACHE"):
        return _writable(Path(chosen))
    try:
        return _writable(user_cache_path("fasthg", appauthor=False))
    except RuntimeError:  # a user whom the system does not know, without $HOME
        return None


@cache
def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        log.warning("no cache: %s cannot be written (%s); FASTHG_CACHE=DIR names another", folder, error.strerror)
        return None


def cannot_write(path: Path, error: OSError) -> FasthgError:
    """The one-line error for `path` that could not be written."""
    reason = _PLACE_ERRORS.get(error.errno or 0, f"{error.strerror or error}; choose another folder")
    return FasthgError(f"cannot write {path}: {reason}")


def check_room(path: str | Path, size: int) -> None:
    """Raise FasthgError where the disk has no room for `path` with `size` bytes."""
    if shutil.disk_usage(Path(path).parent).free < size:
        raise cannot_write(Path(path), OSError(errno.ENOSPC, ""))


def make_folder(folder: str | Path) -> Path:
    """Create `folder` with its parents where it is missing; raises FasthgError where it cannot be."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


class Inputs:
    """Files that a command reads and never writes to; each is looked at once, however many results are asked about."""

    def __init__(self, files: Iterable[str | Path]) -> None:
        wholes = {Path(os.path.realpath(file)) for file in files}
        self._places = {str(place) for whole in wholes for place in (whole, *whole.parents)}
        self._known: set[tuple[int, int]] = set()
        for place in self._places:
            with contextlib.suppress(OSError):
                self._known.add(_identity(place))

    def __contains__(self, path: str | Path) -> bool:
        """Whether `path` is one of the files, by whatever name, or a folder that one lies in."""
        if not os.path.exists(path):
            return False
        # By its identity also through a link, a mount or another case; by its name where it was replaced meanwhile.
        return _identity(path) in self._known or os.path.realpath(path) in self._places


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def check_new(path: str | Path, inputs: Iterable[str | Path] | Inputs = (), overwrite: bool = False) -> None:
    """Raise FasthgError where writing `path` would write to an input, or replace what is there without `overwrite`.

    The rule of every command: an input is never written to, under whatever name or link; an existing result is replaced
    where --overwrite says so. Where `path` is a folder that is written as a whole, no input may be inside it either.
    """
    path = Path(path)
    if is_same_file(path, inputs):
        raise FasthgError(f"cannot write {path}: this command reads it; choose another name")
    if not overwrite and (os.path.islink(path) or (os.path.exists(path) and not _is_empty_folder(path))):
        raise FasthgError(f"{path} exists; give --overwrite to replace it, or choose another name")


def new_folder(
    folder: str | Path, results: Iterable[str], inputs: Iterable[str | Path] | Inputs = (), overwrite: bool = False
) -> Path:
    """Where results of these names are written: `folder`, or `folder`-2 and so on where it holds an earlier one.

    With `overwrite` it is `folder` in any case. Raises FasthgError where a result would be written to an input.
    """
    folder, names, given = Path(folder), list(results), _as_inputs(inputs)
    chosen, number = folder, 1
    while not overwrite and any(os.path.lexists(chosen / name) for name in names):
        number += 1
        has_name = folder.name not in ("", "..")
        chosen = folder.with_name(f"{folder.name}-{number}") if has_name else folder / f"results-{number}"
    for name in names:
        check_new(chosen / name, given, overwrite)
    return chosen


def is_same_file(path: str | Path, inputs: Iterable[str | Path] | Inputs) -> bool:
    """Whether `path` is one of the input files, by whatever name, or a folder that one lies in."""
    return path in _as_inputs(inputs)


def _as_inputs(inputs: Iterable[str | Path] | Inputs) -> Inputs:
    return inputs if isinstance(inputs, Inputs) else Inputs(inputs)


def _is_empty_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:  # what may not be read holds something
        return False


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, with its suffix; after the block it becomes `path`, in one step.

    Missing folders are created. The temporary file is removed when the block raises. Raises FasthgError where the
    folder cannot be written or the disk is full; an unwritable folder is named before the block runs.
    """
    path = Path(path)
    make_folder(path.parent)
    if os.path.isdir(path):
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, ""))
    aside = _aside(path)
    try:
        _create(aside.touch, path)
        with _blaming_the_place(path):
            yield aside
            _flush(aside)
            os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):  # it is not there, which a read-only disk says in its own way
            aside.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; after the block it becomes `path`, replacing an earlier one as a whole.

    Only a folder that holds a metadata.json, or nothing, is replaced; anything else there raises FasthgError.
    """
    path = Path(os.path.abspath(path))
    make_folder(path.parent)
    if os.path.exists(path) and not path.is_dir():
        raise cannot_write(path, FileExistsError(errno.EEXIST, ""))
    if os.path.isdir(path) and not _is_empty_folder(path) and not (path / _MARKER).exists():
        raise FasthgError(f"cannot write {path}: the folder holds other files and no {_MARKER}; choose another folder")
    aside, old = _aside(path), _aside(path)
    try:
        _create(aside.mkdir, path)
        with _blaming_the_place(path):
            yield aside
            for file in filter(Path.is_file, aside.rglob("*")):
                _flush(file)
            if path.exists():
                os.replace(path, old)
            os.replace(aside, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def staged_files(folder: str | Path, settle: Callable[[list[str]], Path] | None = None) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; after the block its files move into `folder`, beside what is there.

    When the block raises, none of them does, and a folder that was created for them goes again.

    settle  from the files' names to the folder that takes them, where other processes may meanwhile have written to
            `folder`: asked while no other process moves files into the folder that it gives
    """
    folder = Path(folder)
    created = [parent for parent in (folder, *folder.parents) if not os.path.exists(parent)]
    make_folder(folder)
    aside = folder / f".{secrets.token_hex(4)}.part"
    try:
        _create(lambda: aside.mkdir(parents=True), folder)
        with _blaming_the_place(folder):
            yield aside
            files = sorted(filter(Path.is_file, aside.rglob("*")))
            for file in files:
                _flush(file)
            names = [str(file.relative_to(aside)) for file in files]
            with _settled(lambda: settle(names) if settle else folder) as chosen:
                for file, name in zip(files, names):
                    (chosen / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, chosen / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for parent in created:
            with contextlib.suppress(OSError):  # it is not empty, or another process has removed it
                parent.rmdir()


@contextmanager
def _settled(choose: Callable[[], Path]) -> Iterator[Path]:
    """The folder that `choose` gives, and gives once more when no other process is in this block with it."""
    with contextlib.ExitStack() as held:
        chosen = None
        while chosen != (folder := choose()):
            chosen = make_folder(folder)
            descriptor = os.open(chosen, os.O_RDONLY)
            held.callback(os.close, descriptor)
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write a UTF-8 text file as a whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON as a whole or not at all: indented, lists of plain values on one line. NaN raises ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False)
    one_line = re.sub(r"\[\n\s+([^][{}]*)\n\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)
    write_text(path, one_line + "\n")


def make_once(path: Path, make: Callable[[], bytes]) -> Path:
    """`path`, with the content that `make` gives unless the file is there; processes that ask at once make it once."""
    make_folder(path.parent)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write_bytes(path, make())
    return path


def sha256(*paths: str | Path) -> str:
    """Hexadecimal SHA-256 of one file, or of several in a row; raises FasthgError for one that cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            raise FasthgError(f"cannot read {path}: {error.strerror}; check the path") from error
    return digest.hexdigest()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.stem[:_SHOWN]}.{secrets.token_hex(4)}.part{path.suffix}")


def _create(create: Callable[[], None], path: Path) -> None:
    try:
        create()
    except OSError as error:
        raise cannot_write(path, error) from error


def _flush(file: Path) -> None:
    """Put a file's content on the disk before its name points to it, so that a power cut cannot leave an empty one."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _blaming_the_place(path: Path) -> Iterator[None]:
    """Turn an error that comes from the disk or its permissions into a FasthgError that names `path`."""
    try:
        yield
    except FasthgError:
        raise
    except OSError as error:
        if error.errno in _PLACE_ERRORS:
            raise cannot_write(path, error) from error
        raise
    except Exception as error:
        # Native writers (safetensors, ONNX, HDF5) report a full disk with exceptions of their own.
        if shutil.disk_usage(path.parent).free < _FULL:
            raise cannot_write(path, OSError(errno.ENOSPC, "")) from error
        raise
