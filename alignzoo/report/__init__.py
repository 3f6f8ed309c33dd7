"""What a person looks at after a run: a table in the terminal, and a page drawn from the run folder alone."""

from alignzoo.report.html import write_report
from alignzoo.report.table import summary_table

__all__ = ["summary_table", "write_report"]
