"""Plots of a comparison: reward against KL, differences, spread over the grid."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alignzoo.compare.axes import BEST_OF, best_of_draws
from alignzoo.compare.columns import JUDGES, MARGIN, Column
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord
from alignzoo.compare.table import Table
from alignzoo.core.files import atomic_write, write_page
from alignzoo.evaluation.best_of_draws import kl_bound
from alignzoo.report.comparison import frontiers
from alignzoo.report.comparison.axis_plots import axis_plots
from alignzoo.report.comparison.look import hover_disc, legend, look, plain_words
from alignzoo.report.comparison.numbers import difference_words, digits, number
from alignzoo.report.svg import INK, STYLE, hover, inline, new_figure, png_bytes, style_axes, svg_document

DPI, HEIGHT = 180, 4.2
READABLE = 0.8
"""Smallest share of its own size that a plot is drawn at: its labels then have 10 pixels."""
FAR = 25
"""Multiple of the median KL above which the axis becomes logarithmic."""


@dataclass(frozen=True)
class Plot:
    """A plot as SVG and PNG, with its file name, title and description."""

    name: str
    title: str
    description: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        """SVG element for a page that holds several.

        It is drawn no smaller than its labels can be read at. A narrower page scrolls it.
        """
        width = re.search(r'width="([\d.]+)pt"', self.svg)
        least = f"{READABLE * float(width[1]) * 4 / 3:.0f}px" if width else "0"
        return inline(self.svg, self.name).replace("<svg ", f'<svg style="min-width: {least}" ', 1)

    def save(self, folder: Path) -> None:
        """Write NAME.svg and NAME.png."""
        write_page(folder / f"{self.name}.svg", self.svg)
        with atomic_write(folder / f"{self.name}.png") as temporary:
            temporary.write_bytes(self.png)


def plots(table: Table) -> list[Plot]:
    """Return every plot that the table has figures for."""
    reward, column = reward_column(table), _spread_column(table)
    wanted: tuple[tuple[str, str, str, Callable[[Table], Figure | None]], ...] = (
        ("frontier", f"{'reward' if reward and reward.group == JUDGES else 'accuracy'} against KL",
         "Faint: runs. Solid: means of configurations over seeds; the ring marks the one chosen on validation rows. "
         "Dashed line: the Pareto front.", frontier),
        ("differences", f"differences from {table.baseline}",
         "95% intervals, paired by seed and example. Filled markers: the interval excludes 0.", differences),
        ("grid", f"{column.title if column else ''} of all configurations",
         "Faint: runs. Solid: means of configurations on the test rows; the ring marks the one chosen on validation "
         "rows. Bar: the middle half of the configurations. Tick: their median.", spread),
    )  # fmt: skip
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, title, description, draw in wanted:
            figure = draw(table)
            if figure is not None:
                drawn.append(_plot(name, title, description, figure))
        drawn += [_plot(*one) for one in axis_plots(table)]
        if table.frontier:
            picture = frontiers.picture(table.frontier, [row.label for row in table.rows])
            drawn.insert(0, _plot("frontier_along_training", frontiers.TITLE.lower(), frontiers.LEGEND, picture))
    return drawn


def _plot(name: str, title: str, description: str, figure: Figure) -> Plot:
    return Plot(name, title, description, svg_document(figure), png_bytes(figure, DPI))


def reward_column(table: Table) -> Column | None:
    """Return the first known reward of a judge, or else the accuracy by implicit reward."""
    known = {key for _, key in table.cells}
    judged = (c for c in table.columns if c.group == JUDGES and c.key.endswith(".reward") and c.key in known)
    return next(judged, None) or table.column("preference_accuracy")


def frontier(table: Table) -> Figure | None:
    """Draw reward against KL, or return None if either is unknown.

    Source: Rafailov et al. 2023, figure 2.
    """
    kl, reward = table.column("kl"), reward_column(table)
    if kl is None or reward is None:
        return None
    figure, axes = _figure(6.4, HEIGHT)
    means: list[tuple[float, float]] = []
    for n, row in enumerate(table.rows):
        label: str | None = plain_words(row.label)
        for point in row.points:
            runs = _runs(point, kl, reward)
            if not len(runs):
                continue
            x, y = runs.mean(axis=0)
            means.append((x, y))
            axes.scatter(runs[:, 0], runs[:, 1], s=13, alpha=0.35, linewidths=0, **look(n))
            axes.scatter(x, y, s=44, label=label, linewidths=0, zorder=3, **look(n))
            hover_disc(axes, x, y, _named(table, row, point, (kl, reward), (x, y)))
            if point is row.chosen and len(row.points) > 1:
                axes.scatter(x, y, s=130, facecolors="none", edgecolors=look(n)["color"], linewidths=1.3, zorder=3)
            label = None
    if not means:
        return None
    _best_of_starts(table, axes, reward)
    front = pareto(means)
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel(f"KL to the reference (nats per reply{_fold(axes, [x for x, _ in means])})", color=INK)
    axes.set_ylabel(plain_words(reward.title), color=INK)
    legend(figure)
    return figure


def _best_of_starts(table: Table, axes: Any, reward: Column) -> None:
    """Draw best-of-N of the rows that others start from, at the upper bound of its KL.

    Of another row the bound is no distance to the reference. Its curve is with those over N.
    """
    starts = {row.label: n for n, row in enumerate(table.rows) if row.start}
    for one in table.axes:
        if one.axis != BEST_OF or one.column.key != reward.key:
            continue
        for label, n in starts.items():
            known = [(place, cell) for place in one.places if (cell := one.cells.get((label, place)))]
            if not known or any(drawn.temperature != 1 for _, drawn in best_of_draws(_chosen(table, label))):
                continue
            at, means = [kl_bound(int(place)) for place, _ in known], [cell.estimate.mean for _, cell in known]
            name = plain_words(f"best of N of {label}\n(KL: upper bound)")
            axes.plot(
                at, means, **look(n), linestyle=":", linewidth=1.2, markersize=6, markerfacecolor="none", label=name
            )
            for x, (place, cell) in zip(at, known, strict=True):
                words = (
                    f"best of {place:g} of {label}: {reward.title} {number(cell.estimate.mean, 3)}, KL at most {x:.2f}"
                )
                hover_disc(axes, x, cell.estimate.mean, words)


def _chosen(table: Table, label: str) -> list[RunRecord]:
    return [run for row in table.rows if row.label == label and row.chosen for run in row.chosen.done]


def differences(table: Table) -> Figure | None:
    """Draw a forest plot of differences from the baseline in up to four figures.

    Returns None without any difference.
    """
    shown = [column for column in _headlines(table) if any(_cell(table, row, column) for row in table.rows)][:4]
    rows = [(n, row) for n, row in enumerate(table.rows) if any(_cell(table, row, column) for column in shown)]
    if not rows:
        return None
    figure = new_figure(2.0 + 2.3 * len(shown), 0.9 + 0.36 * len(rows))
    for place, column in enumerate(shown):
        axes = style_axes(figure.add_subplot(1, len(shown), place + 1))
        axes.axvline(0, color=INK, linewidth=0.9)
        for y, (n, row) in enumerate(rows):
            cell = _cell(table, row, column)
            if cell is None or cell.difference is None:
                continue
            by, mine = cell.difference, look(n)
            axes.plot([by.low, by.high], [y, y], color=mine["color"], linewidth=1.6, solid_capstyle="round")
            axes.plot(by.mean, y, markersize=6, markeredgewidth=1.4, zorder=3, **mine,
                      markerfacecolor=mine["color"] if cell.apart else "none")  # fmt: skip
            words = " ".join(difference_words(cell, digits(table, column)))
            axes.plot([by.low, by.high], [y, y], linewidth=14, alpha=0, zorder=4,
                      gid=hover(f"{row.label}, {column.title}: {words}"))  # fmt: skip
        axes.set_yticks(
            range(len(rows)), [plain_words(row.label) for _, row in rows] if place == 0 else [""] * len(rows)
        )
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(plain_words(column.head), color=INK)
        axes.locator_params(axis="x", nbins=5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def spread(table: Table) -> Figure | None:
    """Draw the accuracy of every configuration of every row, or what chose among them.

    Returns None if it is unknown.
    """
    column = _spread_column(table)
    if column is None:
        return None
    found = [(n, row, [(point, runs) for point in row.points if len(runs := _runs(point, column))])
             for n, row in enumerate(table.rows)]  # fmt: skip
    found = [one for one in found if one[2]]
    figure, axes = _figure(6.4, max(HEIGHT, 0.9 + 0.42 * len(found)))
    for y, (n, row, points) in enumerate(found):
        mine = look(n)
        means = np.array([runs.mean() for _, runs in points])
        if len(means) > 1:
            low, middle, high = np.quantile(means, [0.25, 0.5, 0.75])
            axes.plot([low, high], [y, y], color=mine["color"], alpha=0.25, linewidth=9, solid_capstyle="butt")
            axes.plot([middle, middle], [y - 0.26, y + 0.26], color=mine["color"], linewidth=1.6)
        for (point, runs), mean in zip(points, means, strict=True):
            axes.scatter(runs[:, 0], np.full(len(runs), float(y)), s=11, alpha=0.35, linewidths=0, **mine)
            axes.scatter(mean, y, s=36, linewidths=0, zorder=3, **mine)
            hover_disc(axes, mean, y, _named(table, row, point, (column,), (mean,)))
            if point is row.chosen and len(row.points) > 1:
                axes.scatter(mean, y, s=120, facecolors="none", edgecolors=mine["color"], linewidths=1.3, zorder=3)
    axes.set_yticks(range(len(found)), [plain_words(row.label) for _, row, _ in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel(plain_words(column.head), color=INK)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure if found else None


def _spread_column(table: Table) -> Column | None:
    """Return the accuracy, or else the figure that chose among configurations.

    It is None for a margin in several units.
    """
    column = table.column("preference_accuracy") or table.column(table.select.key)
    points = [point for row in table.rows for point in row.points if point.done]
    several = len({point.reward_scale for point in points}) > 1
    return None if column is not None and column.key == MARGIN and several else column


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, value) points that no other point beats in both, by rising cost."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _fold(axes: Any, found: Sequence[float]) -> str:
    """Make the x axis symmetric-logarithmic if one run is far from its reference.

    Returns words for the label.
    """
    middle = float(np.median([x for x in found if x > 0] or [1.0]))
    if max(found) <= FAR * middle:
        return ""
    axes.set_xscale("symlog", linthresh=middle, linscale=1.5)
    axes.set_xlim(left=min(0.0, *found))
    return f"; logarithmic above {middle:.3g}"


def _headlines(table: Table) -> list[Column]:
    keys = ("preference_accuracy", *(c.key for c in table.columns if c.group == JUDGES), "likelihood_accuracy", "kl")
    return [column for key in keys if (column := table.column(key))]


def _cell(table: Table, row: ComparedRow, column: Column) -> Any:
    cell = table.cell(row, column)
    return cell if cell and cell.difference and np.isfinite(cell.difference.high) else None


def _runs(point: Point, *columns: Column) -> Any:
    """Return the means of each column on the test rows, shape (runs, columns).

    Runs without one of the columns are left out.
    """
    found = [point.by_seed(column, test=True) for column in columns]
    seeds = [seed for seed in found[0] if all(seed in one for one in found)]
    means = [[float(np.mean(one[s].values[np.isfinite(one[s].values)])) for one in found] for s in seeds]
    return np.array(means).reshape(len(seeds), len(columns))


def _named(table: Table, row: ComparedRow, point: Point, columns: Sequence[Column], means: Sequence[float]) -> str:
    """Return the values of a configuration in words, and below them those of its runs."""

    def values(figures: Sequence[float]) -> str:
        return ", ".join(
            f"{column.title} {number(value, digits(table, column))}"
            for column, value in zip(columns, figures, strict=True)
        )

    chosen = " (chosen)" if point is row.chosen and len(row.points) > 1 else ""
    lines = [f"{row.label}, {point.description}{chosen}: {values(means)}"]
    if len(point.done) > 1:
        found = [point.by_seed(column, test=True) for column in columns]
        for seed in [seed for seed in found[0] if all(seed in one for one in found)]:
            one = Point(point.values, tuple(run for run in point.done if run.seed == seed))
            lines.append(f"seed {seed}: {values([one.mean(column, test=True) or 0.0 for column in columns])}")
    return "\n".join(lines)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = new_figure(width, height)
    return figure, style_axes(figure.add_subplot())
