"""Progress lines and bars on stderr; results go to stdout."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from alignzoo.core.redaction import printable, redact
from alignzoo.core.streams import styled

Advance = Callable[[int, str], None]
"""Called with the number of units done and a short note, such as the loss."""


BESIDE_A_BAR, SHORTEST_BAR = 84, 8
"""Columns of a step's description, count, times, loss, accuracy and margin; and of the shortest bar drawn."""


class Console(rich.console.Console):
    """A rich console for texts from anywhere: no markup, and control characters as text.

    `[/x]` in an id stays as it is, an escape sequence is shown and not obeyed, and a write never fails.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    @property
    def file(self) -> IO[str]:
        """The stream that is written to."""
        found: IO[str] = styled(super().file)
        return found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich text, redacted and escaped before it is measured and wrapped."""
        return super().render_str(printable(redact(text)), **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of any renderable, with their texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def results_console() -> Console:
    """Return the console for results on stdout: terminal width, or 160 columns in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 160)


class Screen:
    """Printer of lines and progress bars on stderr, or of nothing with `quiet=True`.

    It is quiet in every process but the first.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.bars = not quiet

    def without_bars(self) -> Screen:
        """Return a copy that prints lines alone, for work inside another bar."""
        other = copy.copy(self)
        other.bars = False
        return other

    def info(self, text: str) -> None:
        """Print one line, without markup. A log file gets it unbroken."""
        self.console.print(text, soft_wrap=self.logs)

    @property
    def logs(self) -> bool:
        """True if lines go to a file or a pipe, where nobody sees a bar."""
        return not (self.console.is_terminal or self.console.quiet)

    def event(self, text: str) -> None:
        """Print one line on progress: above a bar, or with its time in a log file."""
        if self.logs:
            self.console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", soft_wrap=True)
        else:
            self.info(text)

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show a progress bar over `total` units, of which `done` are already done.

        A narrow terminal gets a shorter bar, or none, so that the figures fit.
        """
        room = self.console.width - BESIDE_A_BAR
        columns = [
            TextColumn("{task.description:<12}", markup=False), BarColumn(bar_width=min(room, 28)),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
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
