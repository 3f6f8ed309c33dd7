"""Colors and markers of rows, the same in every plot and on the page; legends; hovers."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from alignzoo.report.svg import INK, hover

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


def hover_disc(axes: Any, x: float, y: float, words: str, size: float = 150, zorder: float = 4) -> None:
    """Lay an invisible disc over a marker, which is easier to point at and has the words."""
    axes.scatter(x, y, s=size, alpha=0, linewidths=0, zorder=zorder, gid=hover(words))


def legend(figure: Figure) -> None:
    """Draw the legend of a figure to its right."""
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK, fontsize=8)
