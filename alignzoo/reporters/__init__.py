"""The built-in reporters, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.reporter import Reporter
from alignzoo.reporters.html import Html
from alignzoo.reporters.tracker import Tracker


@hookimpl
def register_reporters() -> list[type[Reporter]]:
    """Name the two of this package."""
    return [Html, Tracker]
