"""How a file is damaged: bytes that are gone or replaced, or values that are no longer what they should be."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

_GONE = "gone"
_HUGE = 1 << 70
_INSTEAD = (_GONE, None, True, 0, -1, 0.5, 3, 1e308, float("nan"), float("inf"), _HUGE, "", "x", "../a", [], {}, [[]])
_WORDS = (_GONE, "", "x", "nan", "inf", "-1", "1e400", "0.5", "9" * 30)
_ARRAYS = (
    np.zeros(0),
    np.zeros((0, 16, 2)),
    np.full((2, 16, 2), np.nan),
    np.full(2, -1),
    np.full(2, 1 << 62),
    np.array("x"),
    np.array([b"\xff", b""]),
    np.ones((2, 3, 1)),
    np.array(1 << 40),
)

#: Where in the file (0 to 1), how many bytes go and what comes in their place; or which value (0 to 1) becomes what.
DAMAGE = st.one_of(
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from((0, 1, 2, 4, 16, 1 << 30)), st.binary(max_size=8)),
        min_size=1,
        max_size=6,
    ),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(range(len(_INSTEAD)))), min_size=1, max_size=3
    ),
)


def damaged(suffix: str, content: bytes, damage: list[Any]) -> bytes:
    """The content with its damage; values are those of documents and arrays, other files lose bytes."""
    if len(damage[0]) == 3:
        return _other_bytes(content, damage)
    if suffix not in _DOCUMENTS:
        return _other_bytes(content, [(place, number, bytes([number])) for place, number in damage])
    read, write, values = _DOCUMENTS[suffix]
    document = read(content)
    for place, number in damage:
        places = list(_places(document))
        if places:
            _replace(*places[int(place * len(places))], values[number % len(values)])
    return write(document)


def each_other_value(suffix: str, content: bytes) -> Iterator[bytes]:
    """The content with each of its values replaced, by each that it should not be; none where it is no document."""
    if suffix not in _DOCUMENTS:
        return
    read, write, values = _DOCUMENTS[suffix]
    for number in range(len(list(_places(read(content), 2)))):
        for instead in values:
            document = read(content)
            _replace(*list(_places(document, 2))[number], instead)
            yield write(document)


def _other_bytes(content: bytes, damage: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, instead in damage:
        at = int(place * len(content))
        content = content[:at] + instead + content[at + gone :]
    return content


def _replace(holder: Any, key: Any, instead: Any) -> None:
    if isinstance(instead, str) and instead == _GONE:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(instead)


def _places(value: Any, most: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Every value inside a document, as what holds it and its key or number there; of lists the first `most`."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value[:most])):
            yield value, key
            yield from _places(inner, most)


def _words(content: bytes, separator: str | None) -> list[list[str]]:
    return [line.split(separator) for line in content.decode().splitlines()]


def _joined(rows: list[list[str]], separator: str) -> bytes:
    return "\n".join(separator.join(row) for row in rows).encode()


def _write_arrays(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


#: How files of values are read and written, and what their values may become.
_DOCUMENTS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes], tuple[Any, ...]]] = {
    ".json": (json.loads, lambda document: json.dumps(document).encode(), _INSTEAD),
    ".yaml": (yaml.safe_load, lambda document: yaml.safe_dump(document).encode(), _INSTEAD),
    ".txt": (lambda content: _words(content, None), lambda rows: _joined(rows, " "), _WORDS),
    ".csv": (lambda content: _words(content, ","), lambda rows: _joined(rows, ","), _WORDS),
    ".npz": (lambda content: dict(np.load(io.BytesIO(content))), _write_arrays, _ARRAYS),
}
