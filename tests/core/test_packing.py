"""Bin packing: every item once, within the limits, and about as balanced or as dense as the best."""

import numpy as np
import pytest

from alignzoo.core.packing import balance, balance_within, cut_by_width, pack_rows

SIZES = {
    "random": np.random.default_rng(0).integers(1, 500, 97).tolist(),
    "equal": [7] * 30,
    "one": [12],
    "one_large": [1000, *range(1, 20)],
}


def sizes(name):
    return SIZES[name]


def once(parts, count):
    return sorted(i for part in parts for i in part) == list(range(count))


@pytest.mark.parametrize("name", SIZES)
def test_parts_are_within_a_third_of_the_best_balance(name):
    """The bound of Graham 1969 for this rule, against what no division can beat."""
    items = sizes(name)
    for count in (1, 2, 3, 8):
        parts = balance(items, count)
        best = max(max(items), sum(items) / count)
        assert once(parts, len(items))
        assert max(sum(items[i] for i in part) for part in parts) <= best * (4 / 3 - 1 / (3 * count)) + max(items) / 3


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("budget", [1, 100, 700, 100_000])
def test_parts_are_within_the_budget_unless_they_hold_one_item(name, budget):
    items = sizes(name)
    for part in (parts := balance_within(items, budget)):
        assert part
        assert sum(items[i] for i in part) <= budget or len(part) == 1
    assert once(parts, len(items))
    for part in (parts := cut_by_width(items, budget)):
        assert part[0] == max(part, key=lambda i: items[i])
        assert len(part) * items[part[0]] <= budget or len(part) == 1
    assert once(parts, len(items))
    rows = pack_rows(items, budget)
    for part in rows:
        width = max(sum(items[i] for i in row) for row in part)
        assert width == max(items[i] for row in part for i in row)
        assert len(part) * width <= budget or len(part) == 1
    assert once([row for part in rows for row in part], len(items))


def test_items_of_several_rows_count_as_many():
    assert cut_by_width([5, 5, 5, 5], 20, [2, 2, 2, 2]) == [[0, 1], [2, 3]]
    assert cut_by_width([5, 5, 5, 5], 20, [3, 1, 4, 1]) == [[0, 1], [2], [3]]


def test_rows_are_filled_by_the_first_item_that_fits():
    assert pack_rows([10, 6, 5, 4, 3, 2]) == [[[0], [1, 3], [2, 4, 5]]]
