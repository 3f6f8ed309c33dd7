"""The built-in reporters, registered through the hook that plugins use."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.reporter import Reporter
from alignzoo.report.reporters.html import Html
from alignzoo.report.reporters.tracker import Tracker


@hookimpl
def register_reporters() -> list[type[Reporter]]:
    """Return the reporters of this package."""
    return [Html, Tracker]
