"""alignzoo: a plugin-based zoo of alignment objectives.

The public API is what `__all__` lists. Everything is imported when first used, so that `import alignzoo` is instant and
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo import ties
    from alignzoo.composition import Modifier
    from alignzoo.data.format import Format
    from alignzoo.data.rows import Completion, Row, Skipped
    from alignzoo.data.source import DataSource, FileSource, content_of
    from alignzoo.errors import RunFailed, UserError
    from alignzoo.flow import RunResult, run
    from alignzoo.hookspecs import hookimpl
    from alignzoo.judge import Judge
    from alignzoo.metric import Metric
    from alignzoo.model_source import ModelSource
    from alignzoo.objective import Field, Objective, Pair, Ranked, Scored, Tokens, Unpaired
    from alignzoo.recipe import load_recipe
    from alignzoo.registry import get_objective
    from alignzoo.reporter import Reporter

__version__ = "0.1.0"

_HOME = {
    "Completion": "alignzoo.data.rows",
    "DataSource": "alignzoo.data.source",
    "Field": "alignzoo.objective",
    "FileSource": "alignzoo.data.source",
    "Format": "alignzoo.data.format",
    "Judge": "alignzoo.judge",
    "Metric": "alignzoo.metric",
    "ModelSource": "alignzoo.model_source",
    "Modifier": "alignzoo.composition",
    "Objective": "alignzoo.objective",
    "Pair": "alignzoo.objective",
    "Ranked": "alignzoo.objective",
    "Reporter": "alignzoo.reporter",
    "Row": "alignzoo.data.rows",
    "RunFailed": "alignzoo.errors",
    "RunResult": "alignzoo.flow",
    "Scored": "alignzoo.objective",
    "Skipped": "alignzoo.data.rows",
    "Tokens": "alignzoo.objective",
    "Unpaired": "alignzoo.objective",
    "UserError": "alignzoo.errors",
    "content_of": "alignzoo.data.source",
    "get_objective": "alignzoo.registry",
    "hookimpl": "alignzoo.hookspecs",
    "load_recipe": "alignzoo.recipe",
    "run": "alignzoo.flow",
    "ties": "alignzoo.ties",
}

__all__ = [
    "Completion",
    "DataSource",
    "Field",
    "FileSource",
    "Format",
    "Judge",
    "Metric",
    "ModelSource",
    "Modifier",
    "Objective",
    "Pair",
    "Ranked",
    "Reporter",
    "Row",
    "RunFailed",
    "RunResult",
    "Scored",
    "Skipped",
    "Tokens",
    "Unpaired",
    "UserError",
    "__version__",
    "content_of",
    "get_objective",
    "hookimpl",
    "load_recipe",
    "run",
    "ties",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignzoo' has no attribute '{name}'")
    module = import_module(_HOME[name])
    return module if name == "ties" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
