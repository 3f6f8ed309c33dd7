"""Progress of calls from Python: bars in a notebook and on a terminal."""

from __future__ import annotations

import sys

from alignzoo.core.console import Screen
from alignzoo.core.notebook import NotebookScreen, in_notebook


def screen_of(quiet: bool | None) -> Screen:
    """Return where progress is shown: by default in a notebook or on a terminal."""
    if in_notebook() and not quiet:
        return NotebookScreen()
    return Screen(quiet=not sys.stderr.isatty() if quiet is None else quiet)
