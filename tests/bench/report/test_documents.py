"""What people read of the project renders as it was meant: whole tables, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("fasthg", "kernels", "bench", "tests")
DOCUMENTS = [ROOT / "README.md", *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.md")))]


def tables_of(text: str) -> list[list[str]]:
    """The lines of each Markdown table: what stands around a line of dashes up to the next empty line."""
    blocks = [block.strip().splitlines() for block in re.split(r"\n\s*\n|<!--.*?-->", text)]
    return [block for block in blocks if any(line.startswith("|") for line in block)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_whole_and_links_lead_to_files(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for header, dashes, *lines in tables_of(text):
        assert re.fullmatch(r"\|(\s*-+:?\s*\|)+", dashes), header
        assert lines, header
        assert {line.count("|") for line in (dashes, *lines)} == {header.count("|")}, header
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / target).exists(), target
