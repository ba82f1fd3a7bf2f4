"""How a file is damaged: bytes that are gone or replaced, or values that are no longer what they should be."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

Bytes = list[tuple[float, int, bytes]]
Values = list[tuple[float, Any]]

_GONE = "gone"
_HUGE = 1 << 70
_INSTEAD = (_GONE, None, True, 0, -1, 0.5, 3, 1e308, float("nan"), float("inf"), _HUGE, "", "x", "../a", [], {}, [[]])
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
    if suffix in (".json", ".yaml"):
        document = json.loads(content) if suffix == ".json" else yaml.safe_load(content)
        for place, number in damage:
            document = _other_value(document, place, copy.deepcopy(_INSTEAD[number]))
        return (json.dumps(document) if suffix == ".json" else yaml.safe_dump(document)).encode()
    if suffix == ".npz":
        arrays = dict(np.load(io.BytesIO(content)))
        for place, number in damage:
            name = list(arrays)[int(place * len(arrays))]
            arrays[name] = _ARRAYS[number % len(_ARRAYS)]
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()
    return _other_bytes(content, [(place, number, bytes([number])) for place, number in damage])


def _other_bytes(content: bytes, damage: Bytes) -> bytes:
    for place, gone, instead in damage:
        at = int(place * len(content))
        content = content[:at] + instead + content[at + gone :]
    return content


def _other_value(document: Any, place: float, instead: Any) -> Any:
    places = list(_places(document))
    if not places:
        return instead
    holder, key = places[int(place * len(places))]
    if instead is _GONE:
        del holder[key]
    else:
        holder[key] = instead
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside a document, as what holds it and its key or number there."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)
