"""Reporter that writes the report page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.interfaces.reporter import Reporter


class Html(Reporter):
    """Write report.html into the run folder: curves, samples, statistics of the data."""

    name = "html"

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Draw the page from the folder's files, as `alignzoo report FOLDER` does."""
        from alignzoo.report.run_page import write_report

        write_report(folder)
