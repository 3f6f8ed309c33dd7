"""The area under the curve of desirable and other completions, as a mean over rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def pseudovalues(placements: Values, desirable: ArrayLike, others: ArrayLike) -> tuple[Values, Values]:
    """Return values whose mean is the area under the curve, and their weights, (N,) each.

    The values have DeLong's variance. With m desirable completions and n others in N rows, the area's deviation is the
    sum over rows of (p / m + q / n) (placement - area), p and q being the row's completions of either kind: DeLong,
    DeLong and Clarke-Pearson 1988, equation 4 and, with rows of one prompt summed, Obuchowski 1997, equation 4. A row
    that holds both kinds is represented by the mean of its placements. The same holds for the mean difference of scores
    to the other kind.

    Args:
        placements: Mean over a row's completions of the share of the other kind that stands on its right side; nan for
            a row without one.
        desirable: Desirable completions of each row.
        others: Other completions of each row.
    """
    known = np.isfinite(placements)
    good, bad = (np.where(known, np.asarray(counts, np.float64), 0.0) for counts in (desirable, others))
    if not good.sum() or not bad.sum():
        return placements, np.ones(len(placements))
    weights = good / good.sum() + bad / bad.sum()
    area = float(np.average(placements[known], weights=weights[known]))
    return area + known.sum() * weights * (placements - area), weights
