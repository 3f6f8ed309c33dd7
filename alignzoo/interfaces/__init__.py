"""Base classes of each kind of component, one file a kind, and hooks that register them."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "component": ["Component", "summary"],
        "data_source": ["DataSource"],
        "executor": ["Executor"],
        "format": ["Format"],
        "group": ["Group"],
        "hookspecs": ["KINDS", "hookimpl"],
        "judge": ["Judge"],
        "loss_inputs": ["Pair", "Ranked", "Scored", "Unpaired"],
        "metric": ["Metric"],
        "model_source": ["ModelSource"],
        "modifier": ["Modifier"],
        "objective": ["Field", "Objective"],
        "reporter": ["Reporter"],
        "requirements": ["Requirements", "ScoredComponent"],
        "rows": ["Completion", "Row", "Skipped"],
        "tokens": ["Tokens"],
    },
)
