"""Files and folders wherever they are: on this machine, or on what pyarrow's file systems reach (s3://, gs://, hdfs://)."""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Callable
from glob import glob as local_glob
from pathlib import Path
from typing import TypeVar

from fasthg.errors import FasthgError
from fasthg.files import make_folder, write_bytes

Result = TypeVar("Result")


class Place:
    """A file or folder by its path or address. Raises FasthgError for an address that no file system here knows."""

    def __init__(self, where: str | Path) -> None:
        from pyarrow import fs

        self.where = str(where)
        self.is_local = "://" not in self.where
        if self.is_local:  # by Python itself: pyarrow's names have to be UTF-8
            self.path = self.where
            return
        try:
            self.system, self.path = fs.FileSystem.from_uri(self.where)
        except (OSError, ValueError) as error:
            raise FasthgError(f"{self.where}: {_short(error)}; give a path, or an address such as s3://...") from None

    def child(self, name: str) -> Place:
        """A file of the folder."""
        return Place(self.where.rstrip("/") + "/" + name)

    def holds(self, where: str) -> bool:
        """Whether this folder is, or holds, what a path or address names."""
        if not self.is_local or "://" in where:
            return (where.rstrip("/") + "/").startswith(self.where.rstrip("/") + "/")
        return any(
            os.path.join(found(where), "").startswith(os.path.join(found(self.path), ""))
            for found in (os.path.abspath, _where_it_lies)
        )

    def kind(self) -> str:
        """ "file", "folder" or "" where there is nothing."""
        from pyarrow import fs

        if self.is_local:
            return "folder" if os.path.isdir(self.path) else "file" if os.path.isfile(self.path) else ""
        found = _told(self, lambda: self.system.get_file_info(self.path).type)
        return {fs.FileType.File: "file", fs.FileType.Directory: "folder"}.get(found, "")

    def names(self) -> list[str]:
        """Names of a folder's files, sorted; none where there is no folder."""
        from pyarrow import fs

        if self.is_local:
            return _told(self, lambda: _files(self.path)) if os.path.lexists(self.path) else []
        selector = fs.FileSelector(self.path, allow_not_found=True)
        found = _told(self, lambda: self.system.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type != fs.FileType.Directory)

    def read(self) -> bytes:
        """A file's content."""

        def content() -> bytes:
            if self.is_local:
                return Path(self.path).read_bytes()
            with self.system.open_input_stream(self.path) as file:
                return file.read()

        return _told(self, content)

    def write(self, content: bytes) -> None:
        """Write a file as a whole or not at all; its folder is made where it is missing."""
        if self.is_local:
            write_bytes(self.where, content)
            return

        def put() -> None:
            self.system.create_dir(posixpath.dirname(self.path), recursive=True)
            with self.system.open_output_stream(self.path) as file:  # an object store shows what is complete alone
                file.write(content)

        _told(self, put)

    def make_folder(self) -> None:
        if self.is_local:
            make_folder(self.where)
        else:
            _told(self, lambda: self.system.create_dir(self.path, recursive=True))


def to_text(name: str) -> str:
    """A file's name as text: bytes that are none are written as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()


def _where_it_lies(path: str) -> str:
    """The real folder, or a file's name in its real folder, whatever it links to."""
    if os.path.isdir(path):
        return os.path.realpath(path)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _files(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir())


def glob(pattern: str) -> list[str]:
    """The files that match, in the order of their names; at an address the last part of the pattern alone may vary."""
    if Place(pattern).is_local:
        return sorted(path for path in local_glob(pattern, recursive=True) if Path(path).is_file())
    folder, _slash, last = pattern.rpartition("/")
    names = Place(folder or ".").names()
    return [f"{folder}/{name}" if folder else name for name in names if fnmatch.fnmatchcase(name, last)]


def _told(place: Place, act: Callable[[], Result]) -> Result:
    """What `act` gives; its failure as one line that names the place."""
    try:
        return act()
    except FasthgError:
        raise
    except OSError as error:
        raise FasthgError(f"{place.where}: {_short(error)}; check the path and your rights") from None


def _short(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0].partition(". Detail")[0]
