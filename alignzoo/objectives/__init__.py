"""Losses as pure math, sums of losses, and modifiers."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "composition": ["Modified", "Sum", "incompatibility"],
        "probe": ["SyntheticInputs", "reads_log_ratio"],
    },
)
