"""MATLAB's files by SciPy, whose parser ends the process on some damaged ones instead of raising."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

_HEADER, _TAG, _COMPRESSED = 128, 8, 15  # bytes of a file's header and of a variable's tag, and its type
_PROBE = "import sys, scipy.io.matlab as m; m.loadmat(sys.argv[1])"
_PATIENCE = 120  # seconds


def read_mat(path: Path, **options: Any) -> dict[str, Any]:
    """What `scipy.io.loadmat` gives; raises whatever it raises, and ValueError where it would end the process.

    MATLAB compresses variables and adds checksums. Where a file has none, another process reads it first.
    """
    import scipy.io

    if not _is_whole(path.read_bytes()):
        probe = [sys.executable, "-c", _PROBE, str(path.absolute())]
        if subprocess.run(probe, capture_output=True, check=False, timeout=_PATIENCE).returncode < 0:
            raise ValueError("its variables contradict each other")
    return scipy.io.loadmat(path, **options)


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
