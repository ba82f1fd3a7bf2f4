"""MATLAB's files by SciPy, whose parser ends the process on some damaged ones instead of raising."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

_HEADER, _TAG, _COMPRESSED = 128, 8, 15  # bytes of a file's header and of a variable's tag, and its type
_REWRITE = """
import io, sys, scipy.io.matlab as matlab
content = matlab.loadmat(sys.argv[1])
written = io.BytesIO()
matlab.savemat(written, {name: content[name] for name in content if name[0] != "_"}, do_compression=True)
sys.stdout.buffer.write(written.getvalue())
"""
_PATIENCE = 120  # seconds


def read_mat(path: Path, **options: Any) -> dict[str, Any]:
    """What `scipy.io.loadmat` gives; raises whatever it raises, and ValueError where it would end the process.

    MATLAB compresses variables and adds checksums. A file without them is read, and written anew, by another process.
    """
    import scipy.io

    content = path.read_bytes()
    return scipy.io.loadmat(io.BytesIO(content if _is_whole(content) else _rewritten(path)), **options)


def _rewritten(path: Path) -> bytes:
    """A file's variables, compressed."""
    command = [sys.executable, "-c", _REWRITE, str(path.absolute())]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE)
    if ended.returncode < 0:
        raise ValueError("its variables contradict each other")
    if ended.returncode:
        raise ValueError(ended.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return ended.stdout


def _is_whole(content: bytes) -> bool:
    """Whether all of a file is compressed variables, and their checksums are right."""
    order = "<" if content[126:128] == b"IM" else ">"
    at = _HEADER
    while at < len(content):
        try:
            kind, size = struct.unpack_from(f"{order}II", content, at)
            if kind != _COMPRESSED:
                return False
            zlib.decompress(content[at + _TAG : at + _TAG + size])
        except (struct.error, zlib.error):
            return False
        at += _TAG + size
    return at == len(content)
