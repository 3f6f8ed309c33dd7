"""Shared work on prompts: each process does its part, and all get all results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from alignzoo.core.distributed.process_group import Ranks, share_rows

T = TypeVar("T")


def in_shares(ranks: Ranks, sizes: Sequence[int], work: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """Return a value for each item, in order and in every process.

    One process makes each value.

    Args:
        ranks: The processes.
        sizes: The work that each item is, in any unit.
        work: From indices of items to their values. It is not called for no items.
    """
    mine = sorted(share_rows(range(len(sizes)), sizes, ranks.index, ranks.count))
    made = dict(zip(mine, work(mine) if mine else (), strict=True))
    found = {i: value for part in ranks.all_gather(made) for i, value in part.items()}
    return [found[i] for i in range(len(sizes))]
