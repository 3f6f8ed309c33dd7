"""The command line: one module per command, imported when it is used."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"app": ["COMMANDS", "alignzoo", "main"]})
