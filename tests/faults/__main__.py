"""`python -m tests.faults`: kills, full and read-only disks, and damaged files, at random, for as long as is asked.

Run it nightly; it takes too long for every change. It prints a table, and ends with 1 where anything was lost, half
written, written outside the output, hung, or ended in a traceback.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.disks import full_disks
from tests.faults.kills import kills
from tests.faults.outcome import Row, add_to, table
from tests.faults.readers import READERS, fuzz


def main() -> int:
    """Run the campaign and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill, in all")
    parser.add_argument("--minutes", type=float, default=10, help="for damaged files, for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("kills", "disks", "readers"), default=None)
    parser.add_argument("--names", default=None, help="commands or readers, with commas between; all where left out")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to whose table this is added")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        for row in _rows(Path(name), options):
            failed |= bool(row.failures)
            print(table([row]), flush=True)
            if options.out:  # after each row: a campaign that is ended early keeps what it found
                add_to(options.out, row)
    return int(failed)


def _rows(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    names = options.names and options.names.split(",")
    if options.only in (None, "kills"):
        yield from kills(folder / "kills", options.kills, options.seed, names)
    if options.only in (None, "disks"):
        yield from full_disks(folder / "disks", names)
    if options.only in (None, "readers"):
        chosen = (reader for reader in READERS if names is None or reader.name in names)
        yield from (fuzz(reader, options.minutes, options.seed) for reader in chosen)


if __name__ == "__main__":
    raise SystemExit(main())
