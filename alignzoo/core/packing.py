"""Bin packing of items in parts of equal load, of limited width, or in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heapreplace


def largest_first(sizes: Sequence[int]) -> list[int]:
    """Return the indices of the items by falling size; equal ones in their own order."""
    return sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))


def balance(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Divide items among `count` parts of about equal load.

    Each item, largest first, goes to the emptiest part.

    Source: Graham 1969, "Bounds on Multiprocessing Timing Anomalies", the LPT rule.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, part) for part in range(count)]  # a heap: the emptiest first
    for i in largest_first(sizes):
        load, emptiest = loads[0]
        parts[emptiest].append(i)
        heapreplace(loads, (load + sizes[i], emptiest))
    return parts


def balance_within(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Divide items among as few balanced parts as the budget allows.

    An item over the budget has a part of its own.
    """
    count = max(1, -(-sum(sizes) // budget))
    while True:
        parts = balance(sizes, count)
        if all(len(part) == 1 or sum(sizes[i] for i in part) <= budget for part in parts):
            return [part for part in parts if part]
        count += 1


def cut_by_width(widths: Sequence[int], budget: float, counts: Sequence[int] | None = None) -> list[list[int]]:
    """Cut items into parts of similar width, with rows times width within the budget.

    The widest items come first.

    Args:
        widths: The width that each item needs. A part is as wide as its widest item.
        budget: Limit on rows times width. A part may exceed it with a single item.
        counts: The rows of each item, 1 by default.
    """
    parts: list[list[int]] = []
    rows = width = 0
    for i in largest_first(widths):
        count = counts[i] if counts else 1
        if not parts or (rows + count) * width > budget:
            parts.append([])
            rows, width = 0, widths[i]
        parts[-1].append(i)
        rows += count
    return parts


def pack_rows(sizes: Sequence[int], budget: float = math.inf) -> list[list[list[int]]]:
    """Cut items into parts, and each part into rows that hold several items.

    The method is first fit, largest first.

    Args:
        sizes: The slots that each item needs. The rows of a part are as wide as its largest item.
        budget: Limit on rows times width of a part. A part may exceed it with a single row.

    Returns:
        Parts of rows of indices.
    """
    parts: list[list[list[int]]] = []
    free: list[int] = []
    width = 0
    for i in largest_first(sizes):
        row = next((row for row, room in enumerate(free) if room >= sizes[i]), None)
        if row is None:
            if not parts or (len(free) + 1) * width > budget:
                parts.append([])
                free, width = [], sizes[i]
            parts[-1].append([])
            free.append(width)
            row = len(free) - 1
        parts[-1][row].append(i)
        free[row] -= sizes[i]
    return parts
