"""The built-in reporters, registered through the same hook as anybody's."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.reporter import Reporter
from alignzoo.report.reporters.html import Html
from alignzoo.report.reporters.tracker import Tracker


@hookimpl
def register_reporters() -> list[type[Reporter]]:
    """Name the two of this package."""
    return [Html, Tracker]
