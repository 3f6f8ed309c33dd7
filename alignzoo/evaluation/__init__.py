"""Evaluation of held-out rows and of replies; metrics and judges."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "aggregate": ["Tally"],
        "row_metrics": ["step_metrics"],
        "evaluate": ["score_all"],
        "figures": ["row_figures"],
        "judging": ["run_judge"],
        "samples": ["choose_reply_rows", "reply_records"],
    },
)
