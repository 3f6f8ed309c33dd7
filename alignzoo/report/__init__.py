"""Tables, plots and pages, drawn from finished folders."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "objective_plots": ["write_zoo"],
        "run_page": ["write_report"],
        "summary": ["summary_table"],
    },
)
