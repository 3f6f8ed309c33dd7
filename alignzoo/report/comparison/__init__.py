"""Everything that shows a comparison: Markdown, CSV, JSON, plots, page, terminal."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "plots": ["Plot", "frontier"],
        "terminal": ["terminal_table"],
        "write": ["write_all"],
    },
)
