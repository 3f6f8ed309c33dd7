"""Plots of figures over sampling temperatures and N: a line for each row."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from alignzoo.compare.axes import BEST_OF, TEMPERATURE, AxisFigure
from alignzoo.compare.columns import JUDGES
from alignzoo.compare.table import Table
from alignzoo.report.comparison.axes import axis_groups, cells, digits, words
from alignzoo.report.comparison.look import hover_disc, legend, look, plain_words
from alignzoo.report.svg import INK, new_figure, style_axes

DRAWN = ("length",)
"""Columns that are drawn besides those of judges; the tables have all."""
SPREAD = 0.012
"""Share of the axis by which rows are set apart, so that their intervals do not cover each other."""


def axis_plots(table: Table) -> list[tuple[str, str, str, Figure]]:
    """Return (name, title, description, figure) of every figure over an axis that is drawn.

    Source: Rafailov et al. 2023, figure 2, right, and figure 3, left.
    """
    found = []
    for group in axis_groups(table):
        for one in group.figures:
            if one.column.group == JUDGES or one.column.key in DRAWN:
                over = "temperature" if one.axis == TEMPERATURE else "N of best-of-N"
                name = f"{one.axis}-{one.column.key.replace('.', '-')}"
                about = f"{one.column.description[:1].upper()}{one.column.description[1:]}. Bars: 95% intervals."
                found.append((name, f"{one.column.title} against {over}", about, _draw(table, one)))
    return found


def _draw(table: Table, one: AxisFigure) -> Figure:
    figure = new_figure(6.4, 4.2)
    axes = style_axes(figure.add_subplot())
    positions = [math.log2(place) for place in one.places] if one.axis == BEST_OF else list(one.places)
    width = (max(positions) - min(positions)) or 1.0
    order = {row.label: n for n, row in enumerate(table.rows)}
    for i, label in enumerate(one.labels):
        mine, own = look(order[label]), cells(one, label)
        aside = SPREAD * width * (i - (len(one.labels) - 1) / 2)
        known = [(x + aside, place, cell) for x, place, cell in zip(positions, one.places, own, strict=True) if cell]
        at, means = [x for x, _, _ in known], [cell.estimate.mean for _, _, cell in known]
        axes.plot(at, means, label=plain_words(label), linewidth=1.3, markersize=5, **mine)
        for x, place, cell in known:
            ends = cell.estimate
            if math.isfinite(ends.high - ends.low):
                axes.plot([x, x], [ends.low, ends.high], color=mine["color"], linewidth=1.2, alpha=0.6)
            mean, around = words(cell, digits(one))
            hover_disc(axes, x, ends.mean, f"{label}, {_place(one, place)}: {one.column.title} {mean} {around}")
    if one.axis == BEST_OF:
        axes.set_xticks(positions, [f"{place:g}\n≤ {one.bound(place):.2f}" for place in one.places])
        axes.set_xlabel("N, and the upper bound of KL from the row's own policy, nats", color=INK)
    else:
        axes.set_xticks(positions, [f"{place:g}" for place in one.places])
        axes.set_xlabel("sampling temperature", color=INK)
    axes.set_ylabel(plain_words(one.column.title), color=INK)
    legend(figure)
    return figure


def _place(one: AxisFigure, place: float) -> str:
    return f"temperature {place:g}" if one.axis == TEMPERATURE else f"best of {place:g}"
