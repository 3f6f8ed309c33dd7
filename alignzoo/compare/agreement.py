"""Agreement of two judges beyond chance: Cohen's kappa, with values that linearize it.

Source: Cohen 1960, "A coefficient of agreement for nominal scales". Verdicts are: the one reply, the other, or a tie.
Which reply of a pair comes first is arbitrary, so that each pair is entered in both orders. Each judge then prefers
either place equally often, and two judges with shares t and u of ties agree by chance on (1 - t) (1 - u) / 2 + t u.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def kappa_values(one: Numbers, other: Numbers) -> Numbers:
    """Return values whose mean is Cohen's kappa, shape (P,).

    Each is kappa plus the influence of its pair, so that the clustered variance of their mean is that of kappa to first
    order (the delta method, as Fleiss, Cohen and Everitt 1969 have it).

    Args:
        one: Verdicts of a judge, shape (P,): 1, -1, or 0 for a tie.
        other: Verdicts of another one.

    Returns:
        The values; nan where both judges tie on every pair, which leaves nothing to agree on.
    """
    equal = (one == other).astype(np.float64)
    ties = (one == 0).astype(np.float64), (other == 0).astype(np.float64)
    t, u = (float(own.mean()) for own in ties)
    observed, chance = float(equal.mean()), (1 - t) * (1 - u) / 2 + t * u
    if chance >= 1:
        return np.full(len(one), np.nan)
    kappa = (observed - chance) / (1 - chance)
    by_chance = (observed - 1) / (1 - chance) ** 2
    of_ties = (3 * u - 1) / 2 * (ties[0] - t) + (3 * t - 1) / 2 * (ties[1] - u)
    return kappa + (equal - observed) / (1 - chance) + by_chance * of_ties
