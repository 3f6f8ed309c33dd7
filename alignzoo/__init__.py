"""alignzoo: a plugin-based zoo of alignment objectives.

The public API is what `__all__` lists. Everything is imported when first used, so that `import alignzoo` is instant and
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.composition import Modifier
    from alignzoo.data.rows import Completion, Row, Skipped
    from alignzoo.data.source import DataSource, FileSource
    from alignzoo.errors import RunFailed, UserError
    from alignzoo.flow import RunResult, run
    from alignzoo.hookspecs import hookimpl
    from alignzoo.objective import Field, Objective, Pair, Ranked, Scored, Tokens, Unpaired
    from alignzoo.recipe import load_recipe
    from alignzoo.registry import get_objective

__version__ = "0.1.0"

_HOME = {
    "Completion": "alignzoo.data.rows",
    "DataSource": "alignzoo.data.source",
    "Field": "alignzoo.objective",
    "FileSource": "alignzoo.data.source",
    "Modifier": "alignzoo.composition",
    "Ranked": "alignzoo.objective",
    "Tokens": "alignzoo.objective",
    "Unpaired": "alignzoo.objective",
    "Objective": "alignzoo.objective",
    "Pair": "alignzoo.objective",
    "Row": "alignzoo.data.rows",
    "RunFailed": "alignzoo.errors",
    "RunResult": "alignzoo.flow",
    "Scored": "alignzoo.objective",
    "Skipped": "alignzoo.data.rows",
    "UserError": "alignzoo.errors",
    "get_objective": "alignzoo.registry",
    "hookimpl": "alignzoo.hookspecs",
    "load_recipe": "alignzoo.recipe",
    "run": "alignzoo.flow",
}

__all__ = [
    "Completion",
    "DataSource",
    "Field",
    "FileSource",
    "Modifier",
    "Objective",
    "Pair",
    "Ranked",
    "Row",
    "RunFailed",
    "RunResult",
    "Scored",
    "Skipped",
    "Tokens",
    "Unpaired",
    "UserError",
    "__version__",
    "get_objective",
    "hookimpl",
    "load_recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignzoo' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
