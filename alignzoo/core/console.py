"""Progress lines and bars on stderr; results go to stdout."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignzoo.core.redaction import printable, redact

Advance = Callable[[int, str], None]
"""Called with the number of units done and a short note, such as the loss."""


BESIDE_A_BAR, SHORTEST_BAR = 84, 8
"""Columns of a step's description, count, times, loss, accuracy and margin; and of the shortest bar drawn."""


class Screen:
    """Prints lines and bars on stderr, or nothing with `quiet=True` (every process but the first)."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.bars = not quiet

    def without_bars(self) -> Screen:
        """Return a copy that prints lines alone, for work inside another bar."""
        other = copy.copy(self)
        other.bars = False
        return other

    def info(self, text: str) -> None:
        """Print one line, without markup."""
        self.console.print(printable(redact(text)), markup=False)

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show a progress bar over `total` units, of which `done` are already done.

        A narrow terminal gets a shorter bar, or none, so that the figures fit.
        """
        room = self.console.width - BESIDE_A_BAR
        columns = [
            TextColumn("{task.description:<12}"), BarColumn(bar_width=min(room, 28)), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        ]  # fmt: skip
        if room < SHORTEST_BAR:
            del columns[1], columns[2]  # the bar, and how long it has taken
        with Progress(*columns, console=self.console, disable=not self.bars) as progress:
            task = progress.add_task(what, total=total, completed=done, note="")
            yield lambda n, note: progress.update(task, advance=n, note=note)


_warned: set[str] = set()


def warn_once(text: str) -> None:
    """Print one line on stderr, once in a process."""
    if text not in _warned:
        _warned.add(text)
        print(printable(redact(text)), file=sys.stderr, flush=True)
