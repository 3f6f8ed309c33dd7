"""What a person looks at after a run: a table in the terminal, and a page drawn from the run folder alone."""

from alignzoo.report.run_page import write_report
from alignzoo.report.summary_table import summary_table

__all__ = ["summary_table", "write_report"]
