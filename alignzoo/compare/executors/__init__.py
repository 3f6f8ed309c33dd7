"""The built-in executor, registered through the hook that plugins use."""

from alignzoo.compare.executors.local import Local
from alignzoo.interfaces.executor import Executor
from alignzoo.interfaces.hookspecs import hookimpl


@hookimpl
def register_executors() -> list[type[Executor]]:
    """Return the executors of this package."""
    return [Local]
