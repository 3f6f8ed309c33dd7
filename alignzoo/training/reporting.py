"""A run's reporters, told what is recorded: what one of them raises is said in a line and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.core.console import Screen
from alignzoo.interfaces.reporter import Reporter


class Reporting:
    """The reporters that a recipe names; one that has failed is not told anything more."""

    def __init__(self, reporters: Sequence[Reporter], folder: Path, screen: Screen) -> None:
        self._reporters, self._folder, self._screen = list(reporters), folder, screen

    def start(self, recipe: Mapping[str, Any], step: int) -> None:
        """A run begins or goes on."""
        self._tell(lambda reporter: reporter.on_start(self._folder, recipe, step))

    def line(self, line: Mapping[str, Any]) -> None:
        """A line was added to metrics.jsonl."""
        self._tell(lambda reporter: reporter.on_log(self._folder, line))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is finished."""
        self._tell(lambda reporter: reporter.on_finish(self._folder, summary))

    def _tell(self, one: Callable[[Reporter], None]) -> None:
        for reporter in list(self._reporters):
            try:
                one(reporter)
            except Exception as error:
                what = (str(error).splitlines() or [""])[0]
                self._screen.info(f"reporter {reporter.name} failed ({type(error).__name__}: {what}); the run goes on")
                self._reporters.remove(reporter)
