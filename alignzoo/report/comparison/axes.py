"""Figures over sampling temperatures and N of best-of-N, in words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median_high
from typing import Any

from alignzoo.compare.axes import BEST_OF, TEMPERATURE, AxisFigure, best_of_draws
from alignzoo.compare.cells import Cell
from alignzoo.compare.columns import JUDGES
from alignzoo.compare.results import RunRecord
from alignzoo.compare.scales import SHARE
from alignzoo.compare.table import Table
from alignzoo.report.comparison.numbers import NOTHING, bounds, number

HEADINGS = (
    "recipe", "axis", "place", "kl_upper_bound", "column", "mean", "low", "high", "se", "simulated_coverage", "seeds",
    "examples", "prompts", "baseline", "difference", "difference_low", "difference_high",
)  # fmt: skip
BOUND = "KL from the row's own policy, upper bound (nats)"
"""Label of the row with log N - (N - 1) / N."""


@dataclass(frozen=True)
class AxisGroup:
    """All figures over one axis."""

    axis: str
    figures: tuple[AxisFigure, ...]
    """Figures of judges first."""
    description: str

    @property
    def title(self) -> str:
        """Title of the section."""
        return "over the sampling temperature" if self.axis == TEMPERATURE else "best of N"


def axis_groups(table: Table) -> list[AxisGroup]:
    """Return the figures of each axis that the table has, judges' first."""
    found = []
    for axis, describe in ((TEMPERATURE, _of_temperature), (BEST_OF, _of_best_of)):
        own = sorted((one for one in table.axes if one.axis == axis), key=lambda one: one.column.group != JUDGES)
        if own:
            found.append(AxisGroup(axis, tuple(own), describe(table)))
    return found


def runs_shown(table: Table) -> list[RunRecord]:
    """Return the finished runs of the chosen configurations."""
    return [run for row in table.rows if row.chosen for run in row.chosen.done]


def _of_temperature(table: Table) -> str:
    main = sorted({f"{run.figures.temperature:g}" for run in runs_shown(table) if run.figures.temperature is not None})
    return (
        "Every run answered the same test prompts at each temperature, with the same random numbers; 0 takes the "
        f"likeliest token. All other figures of replies are of temperature {' or '.join(main)}. The KL is measured at "
        "1 alone, where replies are the policy's."
    )


def _of_best_of(table: Table) -> str:
    drawn = [one for _, one in best_of_draws(runs_shown(table))]
    pickers = list(dict.fromkeys(one.picked_by for one in drawn))
    draws = sorted({one.draws for one in drawn})
    asked = list(dict.fromkeys(
        name for one in drawn for name, about in one.folder.judges.items() if about.get("first")
    ))  # fmt: skip
    own, at = " or ".join(pickers), " or ".join(sorted({f"{one.temperature:g}" for one in drawn}))
    text = (
        f"The best of N of a row's own replies, by the score of {own}. Each prompt has "
        f"{' or '.join(map(str, draws))} draws at temperature {at}, "
        "and every N is estimated as the mean over all subsets of N of them; draws with equal scores share their "
        f"weight. {own} is optimized here, so its own win rates are left out. The KL divergence from the row's own "
        "policy is at most log N - (N - 1) / N: an upper bound, not a measurement."
    )
    return text + (f" Of {', '.join(asked)}, the best of the first N draws alone was judged." if asked else "")


def digits(figure: AxisFigure) -> int:
    """Return the decimals of a figure, as those of a column of the table."""
    if figure.column.scale == SHARE:
        return 3
    means = [abs(cell.estimate.mean) for cell in figure.cells.values() if cell.estimate.mean]
    return min(6, max(0, 2 - math.floor(math.log10(median_high(means))))) if means else 2


def heads(figure: AxisFigure) -> list[str]:
    """Return the places of an axis in words."""
    return [f"{place:g}" for place in figure.places]


def cells(figure: AxisFigure, label: str) -> list[Cell | None]:
    """Return a row's figures at every place."""
    return [figure.cells.get((label, place)) for place in figure.places]


def words(cell: Cell | None, decimals: int) -> tuple[str, str]:
    """Return mean and interval of a figure."""
    if cell is None:
        return NOTHING, ""
    return number(cell.estimate.mean, decimals), bounds(cell.estimate, decimals)


def bound_words(figure: AxisFigure) -> list[str]:
    """Return the upper bounds of the KL at every place, [] for temperatures."""
    found = [figure.bound(place) for place in figure.places]
    return [f"≤ {value:.2f}" for value in found if value is not None]


def as_csv(table: Table) -> str:
    """Return a line for each row, column and place, with full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADINGS)
    for one in table.axes:
        for (label, place), cell in one.cells.items():
            own, by, bound = cell.estimate, cell.difference, one.bound(place)
            numbers = (own.mean, own.low, own.high, own.se)
            writer.writerow([
                label, one.axis, f"{place:g}", "" if bound is None else repr(bound), one.column.key,
                *map(_text, numbers), "" if own.coverage is None else own.coverage, own.seeds, own.examples,
                own.clusters, table.baseline, *(map(_text, (by.mean, by.low, by.high)) if by else ("", "", "")),
            ])  # fmt: skip
    return file.getvalue()


def as_json(table: Table) -> Iterator[dict[str, Any]]:
    """Yield every axis figure with its numbers at each place."""
    for one in table.axes:
        yield {
            "axis": one.axis, "column": one.column.key, "places": list(one.places),
            "kl_upper_bound": [one.bound(place) for place in one.places] if one.axis == BEST_OF else None,
            "rows": {
                label: [None if cell is None else _numbers(cell) for cell in cells(one, label)] for label in one.labels
            },
        }  # fmt: skip


def _numbers(cell: Cell) -> dict[str, Any]:
    own = {key: _finite(getattr(cell.estimate, key)) for key in ("mean", "low", "high", "se", "examples", "seeds")}
    by = cell.difference
    return own | {"difference": by and {key: _finite(getattr(by, key)) for key in ("mean", "low", "high", "se")}}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
