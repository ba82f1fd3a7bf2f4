"""What the package's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasthg.data.dataset import load_dataset
from fasthg.data.people import People


@pytest.fixture(scope="session")
def mpii_people(mpii_dir: Path) -> People:
    """MPII's 2,958 validation people, from the JSON, with head sizes."""
    return load_dataset(mpii_dir, "val", check_files=False).people
