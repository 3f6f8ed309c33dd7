"""The report page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.interfaces.reporter import Reporter


class Html(Reporter):
    """report.html in the run folder: curves, samples before and after, what became of every row."""

    name = "html"

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Draw it from the folder's files; `alignzoo report FOLDER` draws it again at any time."""
        from alignzoo.report.run_page import write_report

        write_report(folder)
