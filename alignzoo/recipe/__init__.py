"""Recipes: YAML in, a validated and fingerprinted `Recipe` out.

Every value has the place where it was written.
"""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "find": ["find_recipe", "shipped_recipes"],
        "load": ["load_recipe"],
        "parse": ["Node", "Origin"],
        "resolved": ["Resolved"],
        "schema": ["Recipe"],
    },
)
