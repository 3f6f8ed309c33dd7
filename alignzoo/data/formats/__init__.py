"""Built-in formats, registered through the plugin hook."""

from alignzoo.data.formats.hh import HHDialogues
from alignzoo.data.formats.records import Records
from alignzoo.data.formats.steps import Steps
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.hookspecs import hookimpl


@hookimpl
def register_formats() -> list[type[Format]]:
    """Return the built-in formats."""
    return [Records, HHDialogues, Steps]
