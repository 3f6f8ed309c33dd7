"""Progress of a comparison: a live table, or one line a run without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.live import Live
from rich.table import Table
from rich.text import Text

from alignzoo.compare.plan import Job
from alignzoo.core.console import Advance, Screen
from alignzoo.training.log_lines import short_time

WAITING, WORKING, DONE, FAILED = "dim", "cyan", "green", "red"


class LiveTable:
    """A row for each configuration, a column for each seed, a run's state in each cell."""

    def __init__(
        self, jobs: Sequence[Job], later: int, screen: Screen, missing: Callable[[Job], bool] = lambda job: True,
        at_once: int = 1,
    ) -> None:  # fmt: skip
        self._jobs, self._total, self._screen, self._missing = list(jobs), len(jobs) + later, screen, missing
        self._at_once = at_once
        self._console = screen.console
        self._cells: dict[int, tuple[str, str]] = {}
        self._began: dict[int, float] = {}
        self._taken: list[float] = []
        """Seconds of each run that was trained."""
        self._left = 0
        """Runs still to be trained, with those that have begun."""
        self.caption = ""
        """Time left in words, below the table and after a run's line."""
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Draw the table until the block ends; without a terminal, print a line when a run ends."""
        if not self._console.is_terminal or self._console.quiet:
            yield self
            return
        with Live(self._table(), console=self._console, refresh_per_second=4) as self._live:
            yield self
        self._live = None

    def add(self, jobs: Sequence[Job]) -> None:
        """Add the runs that were announced as later ones."""
        self._jobs += jobs
        self._total = len(self._jobs)

    def title(self, n: int) -> str:
        """Return the name of run n: label, grid point and seed."""
        return _words(self._jobs[n])

    def note(self, text: str) -> None:
        """Print a line of no single run."""
        self._screen.event(text)

    def cell(self, n: int) -> RunScreen:
        """Return a screen that shows the progress of run n in its cell."""
        return RunScreen(partial(self.put, n), partial(self.event, n), self.logs)

    def start(self, n: int) -> None:
        """Say that run n begins, and take its time unless it was finished before."""
        if self._missing(self._jobs[n]):
            self._began[n] = time.monotonic()
        self.put(n, "starting")

    @property
    def logs(self) -> bool:
        """True if lines go to a file or a pipe."""
        return self._screen.logs

    def event(self, n: int, text: str) -> None:
        """Print a line of run n: above the table, or in a log file with its time."""
        self._screen.event(f"{self.title(n)}: {text}")

    def _count_left(self) -> int:
        """Return the number of runs still to be trained, with those that have begun."""
        ended = {n for n, (_, style) in self._cells.items() if style in (DONE, FAILED)}
        missing = sum(self._missing(job) for n, job in enumerate(self._jobs) if n not in ended)
        return self._total - len(self._jobs) + missing

    def _time_left(self) -> str:
        """Return the time for the missing runs, at the mean of those trained here, or ""."""
        if not self._taken or not self._left:
            return ""
        each, now = sum(self._taken) / len(self._taken), time.monotonic()
        spent = sum(min(now - began, each) for began in self._began.values())
        return f"eta {short_time((self._left * each - spent) / min(self._left, self._at_once))}"

    def put(self, n: int, text: str, style: str = WORKING) -> None:
        """Set the state of run n."""
        before = self._cells.get(n)
        self._cells[n] = (text, style)
        if style in (DONE, FAILED):
            began = self._began.pop(n, None)
            if style == DONE and began is not None:
                self._taken.append(time.monotonic() - began)
            self._left = self._count_left()
        self.caption = self._time_left()
        if self._live is not None:
            self._live.update(self._table())
        elif style in (DONE, FAILED) and (before is None or before[1] != style):
            words = "; ".join(filter(None, [text, self.caption]))
            self._screen.event(f"[{n + 1} of {self._total}] {self.title(n)}: {words}")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, caption=self.caption or None, caption_justify="left")
        table.add_column("RUN")
        columns: list[str] = []
        rows: dict[tuple[str, str], dict[str, int]] = {}
        for n, job in enumerate(self._jobs):
            point, seed = job.key
            rows.setdefault((job.label, point), {})[seed] = n
            columns += [seed] if seed not in columns else []
        for seed in columns:
            table.add_column(f"SEED {seed}")
        for (label, point), cells in rows.items():
            shown = [self._cells.get(cells[s], ("waiting", WAITING)) if s in cells else ("", "") for s in columns]
            table.add_row(f"{label}  {point}", *(Text(text, style=style) for text, style in shown))
        return table


class RunScreen(Screen):
    """Screen of one run within a comparison: its bar is text in the run's cell.

    Lines are hidden, except those on its progress.

    Args:
        state: Shows what the run does, in its cell.
        event: Prints a line on its progress, after its name.
        logs: True if lines go to a file or a pipe.
    """

    def __init__(self, state: Callable[[str], None], event: Callable[[str], None], logs: bool) -> None:
        super().__init__(quiet=True)
        self.state, self._event, self._logs = state, event, logs

    @property
    def logs(self) -> bool:
        """True if lines go to a file or a pipe."""
        return self._logs

    def event(self, text: str) -> None:
        """Print a line of the run, after its name."""
        self._event(text)

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show `dpo 120/600` in the cell."""
        count = done

        def advance(n: int, note: str) -> None:
            nonlocal count
            count += n
            self.state(f"{label} {count:,}/{total:,}")

        advance(0, "")
        yield advance


def _words(job: Job) -> str:
    point, seed = job.key
    return " ".join(filter(None, [job.label, point, f"seed {seed}"]))
