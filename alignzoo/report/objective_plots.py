"""A panel for every objective: its loss above, its gradients at both completions below."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from alignzoo.core.files import atomic_write, write_page
from alignzoo.report.loss_curves import OTHERS, REACH, Curve, Shape
from alignzoo.report.svg import (
    BLUE,
    GREEN,
    INK,
    RED,
    STYLE,
    inline,
    png_bytes,
    round_coordinates,
    style_axes,
    svg_document,
)

WIDTH, HEIGHT = 1.72, 2.14
"""Size of a panel in inches."""
DPI = 160
"""Resolution of a PNG."""
DASHED = (0, (3, 1.5))
LEGEND: dict[str, tuple[str, str, Any]] = {
    "loss": ("loss", BLUE, "-"),
    "chosen": ("upward pull on the chosen completion, −∂loss/∂log π(y_w)", GREEN, "-"),
    "rejected": ("downward push on the rejected completion, ∂loss/∂log π(y_l)", RED, DASHED),
}
EXPLAINED = (
    "Default hyper-parameters, log-probs in nats. Starting at the reference, the chosen log-prob rises by half of the "
    "axis value and the rejected one falls by half of it. A single labeled completion moves by all of it, and its loss "
    f"has its label's color. Axes end where the objective's own reward margin is ±{REACH:g}, or where a log-prob would "
    f"exceed zero. Other examples in the batch have reward margins of −{-OTHERS[0]:g} to {OTHERS[-1]:g}."
)
SMALL = {**STYLE, "axes.linewidth": 0.6, "xtick.major.pad": 3, "ytick.major.pad": 2}


def write_zoo(shapes: Sequence[Shape], path: Path, columns: int) -> None:
    """Draw the panels to a .svg, .png or .html, with a heading over each run of one family.

    The same shapes give the same bytes. A shape with a problem shows it in its panel.

    Raises:
        NotWritten: The disk is full, read-only or the like.
    """
    if path.suffix == ".html":
        write_page(path, _page(shapes))
        return
    with rc_context(SMALL):
        figure = _figure(shapes, min(columns, max(1, len(shapes))))
        data = round_coordinates(svg_document(figure)).encode() if path.suffix == ".svg" else png_bytes(figure, DPI)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _figure(shapes: Sequence[Shape], columns: int) -> Figure:
    rows, width = math.ceil(len(shapes) / columns), max(columns * WIDTH + 0.1, 4.6)
    words = wrap(EXPLAINED, int(17.5 * width))
    across = 3 if columns > 5 else 1
    head = 0.2 * (3 if across == 1 else 1) + 0.13 * len(words) + 0.36
    height = rows * HEIGHT + head
    figure = Figure(figsize=(width, height))
    figure.legend(
        handles=[Line2D([], [], color=color, linestyle=dash, label=label) for label, color, dash in LEGEND.values()],
        loc="upper left", bbox_to_anchor=(0.1 / width, 1 - 0.04 / height), bbox_transform=figure.transFigure,
        ncols=across, frameon=False, labelcolor=INK, fontsize=8, borderaxespad=0, borderpad=0, handlelength=2.2,
    )  # fmt: skip
    below = height - 0.2 * (3 if across == 1 else 1) - 0.07
    figure.text(0.1 / width, below / height, "\n".join(words), color=INK, fontsize=6.5, va="top", linespacing=1.3)
    for row in range(rows):
        some, top = shapes[row * columns : (row + 1) * columns], height - head - row * HEIGHT
        _headings(figure, some, top)
        for column, shape in enumerate(some):
            _panel(figure, shape, column * WIDTH + 0.1, top)
    return figure


def _headings(figure: Figure, shapes: Sequence[Shape], top: float) -> None:
    """Write a family's name on a line over its panels in this row."""
    width, height = figure.get_size_inches()
    start = 0
    for family, some in groupby(shapes, key=lambda shape: shape.cls.family):
        end = start + len(list(some))
        ends = [(start * WIDTH + 0.1) / width, (end * WIDTH - 0.06) / width]
        figure.add_artist(Line2D(ends, [top / height] * 2, color=INK, linewidth=0.7, alpha=0.6))
        figure.text(ends[0], (top + 0.05) / height, family or "other", color=INK, fontsize=8, fontstyle="italic")
        start = end


def _panel(figure: Figure, shape: Shape, left: float, top: float) -> None:
    """Draw one objective; lengths are in inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()

    def text(x: float, y: float, words: str, **how: Any) -> None:
        figure.text((left + x) / width, (top - y) / height, words, color=INK, **how)

    text(0, 0.18, shape.name, fontsize=9, fontweight="bold")
    if shape.problem:
        text(0, 0.34, "\n".join(wrap(f"not drawn: {shape.problem}", 32)[:8]), fontsize=6.5, va="top")
        return
    text(0, 0.3, "; ".join(shape.notes), fontsize=5.5)
    x, wide = left + 0.34, WIDTH - 0.56
    upper = figure.add_axes((x / width, (top - 0.99) / height, wide / width, 0.62 / height))
    lower = figure.add_axes((x / width, (top - 1.68) / height, wide / width, 0.6 / height))
    _draw(upper, lower, shape)
    text(0.34 + wide / 2, 1.91, shape.axis, fontsize=6, ha="center")


def _draw(upper: Any, lower: Any, shape: Shape) -> None:
    """Draw the loss into one axes and the pulls into another below it."""
    for axes, curves in ((upper, shape.losses), (lower, shape.pulls)):
        low, high = _limits([*curves.values(), *([np.zeros(1)] if axes is lower else [])])
        for key, curve in curves.items():
            h, y = _thinned(shape.h, curve, 0.002 * (high - low))
            axes.plot(h, y, color=LEGEND[key][1], linestyle=LEGEND[key][2], linewidth=1.5, solid_joinstyle="round")
            if axes is lower:
                axes.fill_between(h, y, color=LEGEND[key][1], alpha=0.1, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.6, alpha=0.35)
        axes.patch.set_visible(False)
        style_axes(axes, grid=False).tick_params(labelsize=6, length=0, labelbottom=axes is lower)
        end = float(shape.h[-1])
        axes.set_xlim(-end, end)
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(FixedLocator([-end, 0, end] if axes is lower else []))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    lower.axhline(0, color=INK, linewidth=0.6, alpha=0.6)


def _limits(curves: Iterable[Curve]) -> tuple[float, float]:
    """Return limits that hold all curves with some room, for constants too."""
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = float(values.min()), float(values.max())
    room = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _thinned(h: Curve, y: Curve, off: float) -> tuple[Curve, Curve]:
    """Drop points less than `off` from a straight line, which halves the size of a file."""
    kept, start = [0], 0
    for end in range(2, len(h)):
        chord = y[start] + (y[end] - y[start]) * (h[start : end + 1] - h[start]) / (h[end] - h[start])
        if not np.abs(chord - y[start : end + 1]).max() < off:  # also where something is not finite
            start = end - 1
            kept.append(start)
    kept.append(len(h) - 1)
    return h[kept], y[kept]


def _number(value: float) -> str:
    """Return a number in few characters, with a minus sign: 0.05, 60, 4e6."""
    if value and not 1e-3 <= abs(value) < 1e4:
        digits, power = f"{value:.1e}".split("e")
        return f"{float(digits):g}e{int(power)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _page(shapes: Sequence[Shape]) -> str:
    with rc_context(SMALL):
        cards = [(shape, "" if shape.problem else _card(shape, n)) for n, shape in enumerate(shapes)]
    families = [(family, list(some)) for family, some in groupby(cards, key=lambda card: card[0].cls.family)]
    environment = Environment(
        loader=PackageLoader("alignzoo.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("zoo.html.j2").render(
        families=families, count=len(shapes), explained=EXPLAINED, legend=LEGEND, dashed=DASHED
    )


def _card(shape: Shape, n: int) -> Markup:
    """Return both plots of one objective as SVG."""
    figure = Figure(figsize=(2.3, 1.75))
    _draw(figure.add_axes((0.15, 0.56, 0.79, 0.42)), figure.add_axes((0.15, 0.09, 0.79, 0.4)), shape)
    return Markup(inline(round_coordinates(svg_document(figure)), f"p{n}"))  # drawn from numbers alone
