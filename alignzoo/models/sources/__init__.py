"""The built-in model sources, registered through the same hook as anybody's."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.models.sources.transformers import Transformers


@hookimpl
def register_models() -> list[type[ModelSource]]:
    """Name the one of this package."""
    return [Transformers]
