"""What a reporter is: it is told what a run records, and makes something of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Reporter(BaseModel):
    """Base class: subclass it, give it a `name` and what it wants of the three, and return it from
    `register_reporters`. A recipe names it under `reporters`.

    It can't change a run: what it raises is told in a line and the run goes on. It is not part of what the result
    depends on, so a finished run is not done again for another reporter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]

    def ready(self) -> None:
        """Raise UserError when it can't work here (a package is missing): asked before anything is done."""

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """A run begins, or goes on after optimizer step `step`. `recipe` is the resolved one, as plain values."""

    def on_log(self, folder: Path, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: `kind` ("train" or "eval"), `step` and numbers."""

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """The run is finished: its folder is complete and `summary` is summary.json."""
