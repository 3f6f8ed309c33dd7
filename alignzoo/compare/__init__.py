"""Many runs side by side: plan, run, measure, compute intervals."""

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
