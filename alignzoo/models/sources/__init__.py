"""Built-in model sources, registered through the plugin hook."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.models.sources.transformers import Transformers


@hookimpl
def register_models() -> list[type[ModelSource]]:
    """Return the built-in model sources."""
    return [Transformers]
