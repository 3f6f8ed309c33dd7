"""Best of N replies, for several N from the same draws.

Of M draws for a prompt, the figure of best-of-N is estimated as its mean over all subsets of N draws, of the draw with
the highest score in the subset. With the draws in rising order of their scores, the r-th is the best of

    C(r - 1, N - 1) of the C(M, N) subsets.

That is without bias for any N up to M, and has the least variance of all such estimates, because it is the mean over
every choice of N of the M draws (a U-statistic, Hoeffding 1948). Draws with equal scores share their weights equally:
one of them is picked at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import comb, log

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def score_table(verdicts: Sequence[Mapping[str, float | None]], draws: int) -> Numbers:
    """Return the scores of P prompts' draws, (P, draws), NaN where a verdict has none."""
    values = [verdict.get("reward") for verdict in verdicts]
    return np.array([np.nan if value is None else value for value in values], np.float64).reshape(-1, draws)


def best_of_weights(scores: Numbers, count: int) -> Numbers:
    """Return the share of the subsets of `count` draws that each draw is the best of, (P, M).

    Args:
        scores: Score of each of M draws for P prompts, (P, M). A draw without a score, NaN, is never preferred.
        count: N, from 1 to M.

    Raises:
        ValueError: N is out of range.
    """
    draws = scores.shape[1]
    if not 1 <= count <= draws:
        raise ValueError(f"the best of {count} of {draws} draws; expected 1 to {draws}")
    by_rank, found = _shares(draws, count), np.empty(scores.shape)
    known = np.where(np.isnan(scores), -np.inf, scores)
    for row, own in zip(found, known, strict=True):
        order = np.argsort(own, kind="stable")
        ranked = own[order]
        ties = np.cumsum(np.concatenate([[0], ranked[1:] != ranked[:-1]]))
        row[order] = (np.bincount(ties, by_rank) / np.bincount(ties))[ties]
    return found


@lru_cache(maxsize=64)
def _shares(draws: int, count: int) -> Numbers:
    every = comb(draws, count)
    return np.array([comb(rank, count - 1) / every for rank in range(draws)])


def first_best(scores: Numbers, count: int) -> Numbers:
    """Return weights (P, M) of 1 for the best of the first `count` draws, and 0 else.

    It is another estimate without bias, which needs one draw of each prompt; the first of equal scores is taken.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)[:, :count]
    found = np.zeros(scores.shape)
    found[np.arange(len(scores)), known.argmax(1)] = 1.0
    return found


def weighted(values: Numbers, weights: Numbers) -> Numbers:
    """Return the weighted mean of each prompt's draws with a value, (P,), NaN without any.

    Args:
        values: Value of each draw, (P, M), NaN where there is none.
        weights: Their weights, (P, M).
    """
    known = ~np.isnan(values) & (weights > 0)
    total = np.where(known, weights, 0.0).sum(1)
    sums = np.where(known, weights * np.where(known, values, 0.0), 0.0).sum(1)
    return np.divide(sums, total, out=np.full(len(values), np.nan), where=total > 0)


def kl_bound(count: int) -> float:
    """Return log N - (N - 1) / N, the upper bound of best-of-N's KL from its policy, in nats.

    The KL divergence itself is smaller where draws repeat, or scores tie.

    Source: Beirami et al. 2024, arXiv:2401.01879, who prove that it is a bound.
    """
    return log(count) - (count - 1) / count
