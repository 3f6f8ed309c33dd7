"""Ranks of a table's rows by one figure, with a correction for the number of comparisons.

Every pair of rows is compared by the paired difference of the figure, with the standard error of
`alignzoo.compare.statistics`. Holm's step-down procedure (1979) keeps the probability of any false distinction within
5%. A row's rank is 1 plus the number of rows that are distinguishably better. Rows that nothing beats share rank 1, and
the order within a rank means nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from alignzoo.compare.cells import paired_numbers
from alignzoo.compare.columns import DOWN, Column
from alignzoo.compare.scales import paired
from alignzoo.compare.statistics import p_value
from alignzoo.compare.table import Table

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Ranking:
    """The ranks of the rows that have a figure."""

    ranks: Mapping[str, int]
    """Label -> 1 plus the number of rows that are distinguishably better, best first."""
    p_values: Mapping[tuple[str, str], float]
    """(Label, label) -> Holm's adjusted p-value of their difference, each pair once."""

    def apart(self, one: str, other: str, level: float = 0.95) -> bool:
        """Return True if the two rows can be told apart after the correction."""
        return self.p_values.get((one, other), self.p_values.get((other, one), 1.0)) <= 1 - level


def rank(table: Table, column: Column, level: float = 0.95) -> Ranking:
    """Rank the rows of a table by one figure.

    Rows that others start from take part as the others do.

    Args:
        table: The table of a comparison.
        column: A column with a better direction.
        level: Probability of no false distinction in all comparisons together.

    Raises:
        ValueError: The column has no better direction.
    """
    if not column.arrow:
        raise ValueError(f"{column.key} has no better direction")
    sign = -1.0 if column.arrow == DOWN else 1.0
    rows = [row for row in table.rows if row.chosen and table.cell(row, column)]
    mean = {row.label: sign * table.cells[row.label, column.key].estimate.mean for row in rows}
    numbers = {row.label: row.chosen.by_seed(column, test=True) for row in rows if row.chosen}
    found: dict[tuple[str, str], float] = {}
    for one, other in combinations(rows, 2):
        pair = paired_numbers(numbers[one.label], numbers[other.label], one.start, other.start)
        by = paired(*pair.halves, column.scale, pair.groups, pair.weights) if pair else None
        found[one.label, other.label] = p_value(by) if by else 1.0
    adjusted = holm(found)
    result = Ranking({}, adjusted)
    labels = sorted(mean, key=lambda label: -mean[label])
    ranks = {
        label: 1 + sum(mean[other] > mean[label] and result.apart(label, other, level) for other in labels)
        for label in labels
    }
    return Ranking(dict(sorted(ranks.items(), key=lambda item: (item[1], labels.index(item[0])))), adjusted)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return Holm's adjusted p-values.

    Each is the largest (m - i) p_(i) so far, with i from 0 in rising order, and at most 1.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    found: dict[K, float] = {}
    highest = 0.0
    for i, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - i) * p))
        found[key] = highest
    return found
