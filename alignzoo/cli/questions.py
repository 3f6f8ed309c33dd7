"""The end of a question on the terminal: by a signal, or because the input has ended."""

from __future__ import annotations

import click


def end_of_input(stop: click.Abort) -> None:
    """Raise the signal that ended a question, with its exit code; else end its line."""
    if isinstance(stop.__context__, KeyboardInterrupt):
        raise stop.__context__ from None
    click.echo(err=True)
