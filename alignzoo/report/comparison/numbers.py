"""Figures as text, with the same digits down a column."""

from __future__ import annotations

import math
from statistics import median_high

from alignzoo.compare.cells import Cell
from alignzoo.compare.columns import Column
from alignzoo.compare.scales import SHARE
from alignzoo.compare.statistics import Interval, distinguishable
from alignzoo.compare.table import Table

NOTHING = "—"
NOISE = "≈"
"""Before a difference whose interval contains 0."""
OTHER_UNIT = "other unit"
"""In place of a margin's difference where the baseline's is in another unit."""


def digits(table: Table, column: Column) -> int:
    """Return the decimals of a column: three for a share, else three significant digits.

    Significant digits are those of the median figure. Starts are left out: their KL is 0, and their margin may have
    another scale.
    """
    if column.scale == SHARE:
        return 3
    cells = [cell for row in table.rows if not row.start and (cell := table.cell(row, column))]
    means = [abs(cell.estimate.mean) for cell in cells if cell.estimate.mean]
    return min(6, max(0, 2 - math.floor(math.log10(median_high(means))))) if means else 2


def number(value: float, decimals: int, signed: bool = False) -> str:
    """Return `1,234`, `-0.50`, or with `signed` `+0.50`; never minus zero."""
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    return text if text.strip("+-0.,") else text.replace("-", "+" if signed else "")


def bounds(estimate: Interval, decimals: int, signed: bool = False, percent: bool = False) -> str:
    """Return `[0.898, 0.925]`, or "" for a single number.

    `(89%)` after it is the simulated coverage of an interval that may not cover 95%.
    """
    if not math.isfinite(estimate.high - estimate.low):
        return ""
    low, high = (_percent(end) if percent else number(end, decimals, signed) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]" + ("" if estimate.coverage is None else f" ({100 * estimate.coverage:.0f}%)")


def difference_words(cell: Cell | None, decimals: int) -> tuple[str, str]:
    """Return (`≈ +0.003`, `[-0.010, +0.016]`) of a difference from the baseline, or ("", "").

    Of a margin in another unit it is (`other unit`, "").
    """
    if cell is None or cell.difference is None:
        return OTHER_UNIT if cell is not None and cell.other_unit else "", ""
    mean = cell.difference.mean
    words = _percent(mean) if cell.relative else number(mean, decimals, True)
    noise = "" if distinguishable(cell.difference) else f"{NOISE} "
    return noise + words, bounds(cell.difference, decimals, True, cell.relative)


def _percent(share: float) -> str:
    return f"{number(100 * share, 1, True)}%"
