"""Base class of reporters, from a run's records to pages, model cards or tracker entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.interfaces.component import Component


class Reporter(Component):
    """Base class of reporters: a subclass defines `name` and any of the methods.

    The hook `register_reporters` returns the class. A recipe names it under `reporters`. A reporter cannot change a
    run: an exception that it raises is printed in one line, and the run continues. It is not part of the run's
    fingerprint, so that adding one does not repeat a run.
    """

    def ready(self) -> None:
        """Check that the reporter can work here, before the run starts.

        Raises:
            UserError: it cannot, for example because a package is missing.
        """

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Handle the start of a run, or its continuation after optimizer step `step`.

        Args:
            folder: the run folder.
            recipe: the resolved recipe as plain values.
            step: 0, or the optimizer step of the checkpoint that the run continues from.
        """

    def on_log(self, folder: Path, line: Mapping[str, Any]) -> None:
        """Handle one line of metrics.jsonl: `kind` ("train" or "eval"), `step` and numbers."""

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Handle the end of a run. The folder is complete, and `summary` is summary.json."""
