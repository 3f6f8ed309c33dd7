"""Tables on stdout, as wide as the terminal, or 160 columns in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from alignzoo.core.console import results_console


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; long cells fold."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    results_console().print(table)
