"""Built-in data sources, registered through the plugin hook."""

from alignzoo.data.sources.draws import Draws
from alignzoo.data.sources.files import Files
from alignzoo.data.sources.hh import HH
from alignzoo.data.sources.hub import Hub
from alignzoo.data.sources.imdb import IMDb
from alignzoo.data.sources.mix import Mix
from alignzoo.data.sources.toy import Toy
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.hookspecs import hookimpl


@hookimpl
def register_data_sources() -> list[type[DataSource]]:
    """Return the built-in data sources."""
    return [HH, Files, Hub, IMDb, Mix, Toy, Draws]
