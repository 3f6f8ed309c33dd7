"""Progress lines and bars in the output of a notebook's cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from alignzoo.core.console import Advance, Screen
from alignzoo.core.redaction import printable, redact

EVERY_SECONDS = 0.2
"""Least time between two drawings of a bar."""
PAGE = """<div>{what}&nbsp; <progress value="{done}" max="{total}" style="width: 20em"></progress>
&nbsp; {done:,} / {total:,} &nbsp; {seconds:.0f} s{left} &nbsp; {note}</div>"""


def in_notebook() -> bool:
    """Return True in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookScreen(Screen):
    """Printer of lines and progress bars below a notebook's cell. It needs no widgets."""

    def __init__(self) -> None:
        super().__init__()
        self.console.is_jupyter = False  # plain lines, with no frame for each

    def info(self, text: str) -> None:
        """Print one line."""
        print(printable(redact(text)), flush=True)

    @property
    def logs(self) -> bool:
        """False: a bar shows the steps."""
        return False

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show a progress bar over `total` units, of which `done` are already done."""
        if not self.bars:
            yield lambda n, note: None
            return
        display = sys.modules["IPython"].display.display
        shown = _Bar(what, total, done)
        handle = display(shown.page(), display_id=True, raw=True)

        def advance(n: int, note: str) -> None:
            shown.add(n, note)
            if shown.is_due():
                handle.update(shown.page(), raw=True)

        try:
            yield advance
        finally:
            handle.update(shown.page(), raw=True)


class _Bar:
    """A bar's state, drawn as HTML and as text."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done, self.note = what, total, done, ""
        self.first, self.began, self.drawn = done, time.monotonic(), 0.0

    def add(self, n: int, note: str) -> None:
        self.done, self.note = self.done + n, note

    def is_due(self) -> bool:
        """Return True if the last drawing is long enough ago, or this is the end."""
        now = time.monotonic()
        if self.done < self.total and now - self.drawn < EVERY_SECONDS:
            return False
        self.drawn = now
        return True

    def page(self) -> dict[str, Any]:
        """Return the bar by its type of content."""
        seconds, new = time.monotonic() - self.began, self.done - self.first
        left = f", {seconds / new * (self.total - self.done):.0f} s left" if new and self.done < self.total else ""
        what, note = (printable(redact(text)) for text in (self.what, self.note))
        values = {"done": self.done, "total": self.total, "seconds": seconds, "left": left}
        return {
            "text/html": PAGE.format(what=escape(what), note=escape(note), **values),
            "text/plain": f"{what} {self.done:,} / {self.total:,}{left} {note}",
        }
