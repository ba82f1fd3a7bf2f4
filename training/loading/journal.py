"""A file of finished pieces of work, so that a long job that stops goes on where it was.

After a first line with the job's identity (JSON) come the pieces: key, length, CRC-32 and bytes. A piece that was cut
off or damaged, and all that lies behind it, is dropped when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from fasthg.errors import FasthgError
from fasthg.files import cannot_write, make_folder

_HEADER = struct.Struct("<qqI")  # key, length, CRC-32


class Piece(NamedTuple):
    """Where a piece lies in the journal."""

    offset: int
    length: int
    crc32: int


NO_PIECE = Piece(0, 0, 0)


class Journal:
    """Pieces of bytes by an int key, in the file `path`; `identity` says which job they belong to.

    Raises FasthgError when the file cannot be written, is in use, or belongs to a job with another identity.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.pieces: dict[int, Piece] = {}
        make_folder(path.parent)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._end = self._open(json.dumps(identity, sort_keys=True).encode() + b"\n")
        except BaseException:
            os.close(self._descriptor)
            raise

    def _open(self, first_line: bytes) -> int:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FasthgError(f"{self.path} is in use by another run; wait for it or choose another output") from None
        size = os.fstat(self._descriptor).st_size
        found = os.pread(self._descriptor, len(first_line), 0)
        if found != first_line[: len(found)]:
            raise FasthgError(
                f"{self.path} belongs to a run with other data or options; repeat that run, or delete the file"
            )
        if len(found) < len(first_line):
            self._write(first_line, 0)
            return len(first_line)
        end = self._scan(len(first_line), size)
        os.ftruncate(self._descriptor, end)
        return end

    def _scan(self, offset: int, size: int) -> int:
        """Take in the whole pieces from `offset` on; returns where they end."""
        while offset + _HEADER.size <= size:
            key, length, crc32 = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, offset))
            piece = Piece(offset + _HEADER.size, length, crc32)
            if length < 0 or piece.offset + length > size or zlib.crc32(self._read(piece)) != crc32:
                break
            self.pieces[key] = piece
            offset = piece.offset + length
        return offset

    def append(self, key: int, content: bytes) -> None:
        """Add a piece."""
        piece = Piece(self._end + _HEADER.size, len(content), zlib.crc32(content))
        self._write(_HEADER.pack(key, *piece[1:]) + content, self._end)
        self.pieces[key] = piece
        self._end = piece.offset + piece.length

    def read(self, key: int) -> bytes:
        """The bytes of a piece."""
        return self._read(self.pieces[key])

    def _read(self, piece: Piece) -> bytes:
        return os.pread(self._descriptor, piece.length, piece.offset)

    def _write(self, content: bytes, offset: int) -> None:
        try:
            while content:
                written = os.pwrite(self._descriptor, content, offset)
                content, offset = content[written:], offset + written
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close; the job is done when nothing was raised, and its journal goes."""
        if kind is None:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
