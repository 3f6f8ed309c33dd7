"""Names that are known but not installed, and the package that has them: data only."""

from __future__ import annotations

PACKAGE_OF: dict[str, dict[str, str]] = {
    "objective": {"hinge": "alignzoo-example"},
    "data source": {"shp": "alignzoo-shp"},
}
"""kind -> name -> pip package."""
