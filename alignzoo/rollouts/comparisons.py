"""Rewards of judges that only compare: a draw's win rate against the prompt's other draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.interfaces.judge import Asked, Judge


def is_number(value: Any) -> bool:
    """Return True for a number of any type, such as numpy's, and for a boolean."""
    if isinstance(value, str | bytes):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def win_rates(judge: Judge, asked: Asked, each: int, what: str) -> Sequence[float]:
    """Return each draw's win rate against the prompt's other draws, NaN without a verdict.

    A win rate is the mean of the judge's verdicts.

    Args:
        judge: Compares replies.
        asked: Draws, those of a prompt one after the other.
        each: Draws of a prompt. The judge is asked each (each - 1) / 2 times about a prompt.
        what: The reward, for a message.

    Raises:
        RunFailed: The judge fails, or a verdict is not in [0, 1].
    """
    starts = range(0, len(asked.replies), each)
    pairs = [(start + i, start + j) for start in starts for i, j in combinations(range(each), 2)]
    first, second = ([asked.replies[pair[side]] for pair in pairs] for side in (0, 1))
    with attribute_errors(what, judge):
        found = list(judge.prefers([asked.prompts[i] for i, _ in pairs], first, second)) if pairs else []
    if len(found) != len(pairs):
        raise RunFailed(f"{what} returned {len(found)} verdicts for {len(pairs)} pairs of replies")
    wins, count = np.zeros(len(asked.replies)), np.zeros(len(asked.replies))
    for (i, j), verdict in zip(pairs, found, strict=True):
        won = float(verdict) if is_number(verdict) else -1.0
        if won < 0 or won > 1:
            raise RunFailed(f"{what} returned {verdict!r:.40}; expected a number from 0 to 1, or NaN")
        if won == won:
            wins[[i, j]] += won, 1 - won
            count[[i, j]] += 1
    rates: list[float] = np.divide(wins, count, out=np.full(len(wins), np.nan), where=count > 0).tolist()
    return rates
