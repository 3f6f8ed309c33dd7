"""Base classes of every kind of plugin, one file a kind, and the hooks that register them."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "data_source": ["DataSource"],
        "format": ["Format"],
        "hookspecs": ["KINDS", "hookimpl"],
        "judge": ["Judge"],
        "loss_inputs": ["Pair", "Ranked", "Scored", "Tokens", "Unpaired"],
        "metric": ["Metric"],
        "model_source": ["ModelSource"],
        "modifier": ["Modifier"],
        "objective": ["Field", "Objective", "Requirements"],
        "reporter": ["Reporter"],
        "rows": ["Completion", "Row", "Skipped"],
    },
)
