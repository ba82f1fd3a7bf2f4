"""Every reader refuses a file of which one value is not what it should be, or reads it; `python -m tests.faults` tries
more kinds of damage, at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.damage import each_other_value
from tests.faults.outcome import Row
from tests.faults.readers import READERS, Reader, attempt


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_value_that_is_wrong_is_refused_with_one_line(reader: Reader, tmp_path: Path) -> None:
    row = Row(reader.name, "other value")
    for suffix, content in reader.samples():
        for other in each_other_value(suffix, content):
            attempt(reader, tmp_path / f"a{suffix}", other, row)
    assert not row.failures
    if not row.tried:
        pytest.skip("its files are no documents")
