"""The built-in formats, registered through the same hook as anybody's."""

from alignzoo.data.formats.hh import HHDialogues
from alignzoo.data.formats.records import Records
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.hookspecs import hookimpl


@hookimpl
def register_formats() -> list[type[Format]]:
    """Name the two of this package."""
    return [Records, HHDialogues]
