"""What a user is told even where nothing else is shown: that somebody's code is about to run."""

from __future__ import annotations

import sys

from alignzoo.hiding import hide, printable

_said: set[str] = set()


def say_once(text: str) -> None:
    """One line on stderr, once in a process."""
    if text not in _said:
        _said.add(text)
        print(printable(hide(text)), file=sys.stderr, flush=True)
