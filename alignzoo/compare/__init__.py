"""Many runs side by side: plan, run, measure, compute intervals."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "grid": ["ComparedRow", "Point"],
        "plan": ["Job", "Plan", "make_plan"],
        "results": ["EvaluationFolder", "RunRecord", "read_results", "write_results"],
        "runner": ["compare_plan"],
        "spec": ["Comparison", "Sampling", "read_comparison"],
        "statistics": ["Interval", "difference", "interval"],
        "table": ["Table", "build"],
    },
)


class _Callable(ModuleType):
    """This room, which is also the function `alignzoo.compare`: both have the command's name."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Call `alignzoo.api.comparisons.compare`."""
        return import_module("alignzoo.api.comparisons").compare(*arguments, **settings)


sys.modules[__name__].__class__ = _Callable
