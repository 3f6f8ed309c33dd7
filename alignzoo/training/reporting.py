"""Calls to a run's reporters; a reporter that fails is dropped, and the run continues."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.core.console import Screen
from alignzoo.core.errors import first_line
from alignzoo.interfaces.reporter import Reporter


class Reporting:
    """Reporters of a recipe, each called until its first error.

    A reporter that raises an error is named on the screen and not called again.
    """

    def __init__(self, reporters: Sequence[Reporter], folder: Path, screen: Screen) -> None:
        self._reporters, self._folder, self._screen = list(reporters), folder, screen
        self._failed: list[str] = []

    def start(self, recipe: Mapping[str, Any], step: int) -> None:
        """Report that a run begins, or continues after `step` steps."""
        self._call(lambda reporter: reporter.on_start(self._folder, recipe, step))

    def line(self, line: Mapping[str, Any]) -> None:
        """Report a line added to metrics.jsonl."""
        self._call(lambda reporter: reporter.on_log(self._folder, line))

    def finish(self, summary: Mapping[str, Any], only: Collection[str] = ()) -> list[str]:
        """Report a finished run, and return the names of the reporters that failed.

        `only` limits both to the reporters that it names, if there are any.
        """
        self._call(lambda reporter: reporter.on_finish(self._folder, summary), only)
        return [name for name in self._failed if not only or name in only]

    def _call(self, hook: Callable[[Reporter], None], only: Collection[str] = ()) -> None:
        for reporter in list(self._reporters):
            if only and reporter.name not in only:
                continue
            try:
                hook(reporter)
            except (Exception, SystemExit) as error:
                what = first_line(error)
                self._screen.info(
                    f"reporter {reporter.name} failed ({type(error).__name__}: {what}); the run continues"
                )
                self._reporters.remove(reporter)
                self._failed.append(reporter.name)
