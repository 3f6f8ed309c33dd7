"""alignzoo: a plugin-based zoo of alignment objectives.

The public API is what `__all__` lists. Everything is imported when first used, so that `import alignzoo` is instant and
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.api.batches import Batches, batches
    from alignzoo.api.comparisons import ComparisonResult, compare
    from alignzoo.api.judges import judge
    from alignzoo.api.rows import generate, score
    from alignzoo.api.runs import run
    from alignzoo.core.digests import content_digest
    from alignzoo.core.errors import RunFailed, UserError
    from alignzoo.core.workers import WorkerLost
    from alignzoo.data.sources.base import FileSource
    from alignzoo.interfaces import actor_critic, policy_gradient, ties
    from alignzoo.interfaces.component import NoEffect
    from alignzoo.interfaces.data_source import DataSource
    from alignzoo.interfaces.executor import Executor
    from alignzoo.interfaces.format import Format
    from alignzoo.interfaces.group import Group
    from alignzoo.interfaces.hookspecs import hookimpl
    from alignzoo.interfaces.judge import Judge
    from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
    from alignzoo.interfaces.metric import Metric
    from alignzoo.interfaces.model_source import ModelSource
    from alignzoo.interfaces.modifier import Modifier
    from alignzoo.interfaces.objective import Field, Objective
    from alignzoo.interfaces.reporter import Reporter
    from alignzoo.interfaces.rows import Completion, Row, Skipped
    from alignzoo.interfaces.tokens import Tokens
    from alignzoo.recipe.load import load_recipe
    from alignzoo.registry.lookup import get_objective
    from alignzoo.training.run import RunResult

__version__ = "0.2.0.dev0"

_HOME = {
    "Batches": "alignzoo.api.batches",
    "ComparisonResult": "alignzoo.api.comparisons",
    "Completion": "alignzoo.interfaces.rows",
    "DataSource": "alignzoo.interfaces.data_source",
    "Executor": "alignzoo.interfaces.executor",
    "Field": "alignzoo.interfaces.objective",
    "FileSource": "alignzoo.data.sources.base",
    "Format": "alignzoo.interfaces.format",
    "Group": "alignzoo.interfaces.group",
    "Judge": "alignzoo.interfaces.judge",
    "Metric": "alignzoo.interfaces.metric",
    "ModelSource": "alignzoo.interfaces.model_source",
    "Modifier": "alignzoo.interfaces.modifier",
    "NoEffect": "alignzoo.interfaces.component",
    "Objective": "alignzoo.interfaces.objective",
    "Pair": "alignzoo.interfaces.loss_inputs",
    "Ranked": "alignzoo.interfaces.loss_inputs",
    "Reporter": "alignzoo.interfaces.reporter",
    "Row": "alignzoo.interfaces.rows",
    "RunFailed": "alignzoo.core.errors",
    "RunResult": "alignzoo.training.run",
    "Scored": "alignzoo.interfaces.loss_inputs",
    "Skipped": "alignzoo.interfaces.rows",
    "Tokens": "alignzoo.interfaces.tokens",
    "Unpaired": "alignzoo.interfaces.loss_inputs",
    "UserError": "alignzoo.core.errors",
    "WorkerLost": "alignzoo.core.workers",
    "actor_critic": "alignzoo.interfaces.actor_critic",
    "batches": "alignzoo.api.batches",
    "compare": "alignzoo.compare",
    "content_digest": "alignzoo.core.digests",
    "generate": "alignzoo.api.rows",
    "get_objective": "alignzoo.registry.lookup",
    "hookimpl": "alignzoo.interfaces.hookspecs",
    "judge": "alignzoo.api.judges",
    "load_recipe": "alignzoo.recipe.load",
    "policy_gradient": "alignzoo.interfaces.policy_gradient",
    "run": "alignzoo.api.runs",
    "score": "alignzoo.api.rows",
    "ties": "alignzoo.interfaces.ties",
}

__all__ = [
    "Batches",
    "ComparisonResult",
    "Completion",
    "DataSource",
    "Executor",
    "Field",
    "FileSource",
    "Format",
    "Group",
    "Judge",
    "Metric",
    "ModelSource",
    "Modifier",
    "NoEffect",
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
    "WorkerLost",
    "__version__",
    "actor_critic",
    "batches",
    "compare",
    "content_digest",
    "generate",
    "get_objective",
    "hookimpl",
    "judge",
    "load_recipe",
    "policy_gradient",
    "run",
    "score",
    "ties",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignzoo' has no attribute '{name}'")
    module = import_module(_HOME[name])
    return module if name in ("actor_critic", "compare", "policy_gradient", "ties") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
