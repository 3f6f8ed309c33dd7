"""Losses as pure math, sums of losses, and modifiers."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "compatibility": ["incompatibility"],
        "composition": ["Modified", "Sum"],
        "probe": ["reads_log_ratio"],
        "synthetic": ["SyntheticInputs"],
    },
)
