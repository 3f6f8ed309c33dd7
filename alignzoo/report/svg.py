"""The style of all figures, and their SVG and PNG output."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#7d838c"
"""Color of axes and text, legible on white and on black."""
BLUE, RED, GRAY, GREEN = "#3b7dd8", "#d8573b", "#8a8f98", "#2a9d6f"
HOVER = "hover: "
"""Beginning of the gid of an artist with words for a pointer."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "alignzoo", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
}  # fmt: skip
"""matplotlib settings under which the same figure gives the same bytes."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, with constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Any, grid: bool = True) -> Any:
    """Draw the left and bottom spines alone, in ink, and return the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    if grid:
        axes.grid(color=INK, alpha=0.15)
        axes.set_axisbelow(True)
    return axes


def svg_document(figure: Figure) -> str:
    """Return a figure as an SVG document with a transparent background.

    It has no date and no metadata.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    document = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    return re.sub(rf"""<g id=(["']){HOVER}(.*?)\1>""", _title, document, flags=re.DOTALL)


def _title(group: re.Match[str]) -> str:
    words = group[2].replace('"', "&quot;")
    return f'<g class="hover"><title>{words}</title>'


def hover(words: str) -> str:
    """Return the gid of an artist that shows these words when a pointer is over it in the SVG.

    They become the artist's `<title>`, which browsers show without a script.
    """
    return HOVER + words


def png_bytes(figure: Figure, dpi: int) -> bytes:
    """Return a figure as PNG with a transparent background."""
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True, dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def inline(document: str, prefix: str) -> str:
    """Return the `<svg>` element of a document for HTML, with `prefix` before every id.

    Ids are unique within a document only, and a page holds several.
    """
    mark = re.sub(r"\W+", "-", prefix)
    svg = re.sub(r'\bid="', f'id="{mark}-', document[document.index("<svg") :])
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}-", svg)


def round_coordinates(document: str) -> str:
    """Round coordinates to a hundredth of a point, which halves the size of a file."""

    def rounded(attribute: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), attribute[0])

    return re.sub(r'="[^"]*"', rounded, document)
