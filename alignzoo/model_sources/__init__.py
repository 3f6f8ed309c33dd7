"""The built-in model sources, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.model_source import ModelSource
from alignzoo.model_sources.transformers import Transformers


@hookimpl
def register_models() -> list[type[ModelSource]]:
    """Name the one of this package."""
    return [Transformers]
