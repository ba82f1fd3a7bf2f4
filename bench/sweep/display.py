"""The sweep on the terminal: a table that grows as cells end, over one line of progress."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.measure.record import Row

_COLUMNS = (
    ("variant", 24),
    ("path", 18),
    ("mode", 6),
    ("batch", 5),
    ("ms/batch", 9),
    ("p90", 9),
    ("images/s", 9),
    ("x eager", 7),
    ("repeats", 7),
    ("limit", 6),
    ("MB", 6),
    ("error", 8),
    ("PCKh", 6),
    ("change", 7),
)
_LEFT = 3  # columns that are words
_STYLES = {"WRONG": "bold red", "error": "red"}
_BEST = " <"  # behind the fastest so far of its variant and mode


class Display:
    """Prints rows to stdout as they come; the bar goes to stderr, and only to a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        bar_console = Console(stderr=True)
        self.progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self.console if self.console.is_terminal else bar_console,
            disable=not (self.console.is_terminal or bar_console.is_terminal),
        )
        self.task = self.progress.add_task("")
        self.best: dict[tuple[str, str, int], float] = {}  # images/s by variant, mode and batch size

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.progress.stop()

    def phase(self, total: int) -> None:
        """Begin to count anew, up to `total`."""
        self.progress.reset(self.task, total=total, description="")

    def now(self, what: str) -> None:
        """Say what runs at the moment."""
        self.progress.update(self.task, description=what)

    def advance(self) -> None:
        self.progress.advance(self.task)

    def say(self, text: str, style: str = "") -> None:
        console = self.progress.console if self.progress.live.is_started else self.console
        console.print(Text(text), style=style)

    def heading(self) -> None:
        """The table's first line."""
        self.say(_line([name for name, _width in _COLUMNS]), "bold")

    def row(self, row: Row) -> None:
        """A line of the table; the reason in place of numbers where a cell went wrong.

        What is not measured is told in one sentence at the end.
        """
        if row.status in ("left out", "skipped"):
            return
        names = [row.variant, f"{row.path}:{row.precision}" if row.mode != "loader" else row.path, row.mode]
        if row.status != "ok":
            self.say(f"{_line([*names, str(row.batch_size)])} {row.status}: {row.reason}", _STYLES[row.status])
            return
        numbers = (
            (row.median_ms, ".2f"),
            (row.p90_ms, ".2f"),
            (row.images_s, ".2f"),
            (row.ratio, ".2f"),
            (row.repeats, "d"),
            (row.share, ".0%"),
            (row.peak_memory_mb, ".0f"),
            (row.error, ".1e"),
            (row.pckh, ".1f"),
            (row.pckh_change, "+.2f"),
        )
        values = ["" if value is None else format(value, spec) for value, spec in numbers]
        group, rate = (row.variant, row.mode, row.batch_size), row.images_s or 0.0
        best = rate > self.best.get(group, 0.0)
        self.best[group] = max(rate, self.best.get(group, 0.0))
        self.say(_line([*names, str(row.batch_size), *values]) + _BEST * best, "bold" if best else "")


def _line(values: list[str]) -> str:
    cells = [
        value.ljust(width) if number < _LEFT else value.rjust(width)
        for number, (value, (_name, width)) in enumerate(zip(values, _COLUMNS))
    ]
    return " ".join(cells).rstrip()
