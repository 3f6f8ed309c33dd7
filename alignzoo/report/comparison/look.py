"""Color and marker of a row, the same in every plot and on the page."""

from __future__ import annotations

from typing import Any

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733")
"""Paul Tol's bright scheme, safe for color-blind readers, with his vibrant orange in place of gray."""
MARKERS = "osD^vPX*"
"""One more than there are colors, so that the first 56 rows all look different."""


def look(n: int) -> dict[str, Any]:
    """Return color and marker of row n."""
    return {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)]}


def plain_words(text: str) -> str:
    """Escape dollar signs, which matplotlib would read as formulas."""
    return text.replace("$", r"\$")
