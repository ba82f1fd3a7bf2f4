"""What overlays hold in memory while they are drawn."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fasthg.predict import overlays
from fasthg.predict.photo import Photo


@pytest.mark.parametrize(("large", "together"), [(1, 1), (1 << 26, 2)], ids=["large", "small"])
def test_large_pictures_are_encoded_one_at_a_time(
    large: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def encode(_path: Path, _image: np.ndarray) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.2)
        with lock:
            under_way -= 1

    monkeypatch.setattr(overlays, "_LARGE", large)
    monkeypatch.setattr(overlays, "write_png", encode)
    with overlays.Overlays(tmp_path) as drawn:
        for i in range(4):
            drawn.add(Photo(f"{i}.jpg", lambda: np.zeros((20, 30, 3), np.uint8)), [])
    assert most == together


def test_inputs_of_one_name_are_numbered_on(tmp_path: Path) -> None:
    asked: list[str] = []
    others = {"a.png", *(f"a-{number}.png" for number in range(2, 11))}

    def is_taken(name: str) -> bool:
        asked.append(name)
        return name in others

    with overlays.Overlays(tmp_path, is_taken=is_taken) as drawn:
        for i in range(20):
            drawn.add(Photo(f"{i}/a.jpg", lambda: np.zeros((20, 30, 3), np.uint8)), [])
    assert [path.name for path in drawn.written] == [f"a-{number}.png" for number in range(11, 31)]
    assert len(asked) < 60
