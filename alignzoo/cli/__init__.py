"""The command line: one file a command, imported when it is used, so that `--help` needs neither torch nor pydantic."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"app": ["COMMANDS", "alignzoo", "main"]})
