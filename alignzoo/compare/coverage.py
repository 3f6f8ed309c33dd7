"""Simulated coverage of 95% intervals that may not cover 95%.

Above 10 prompts and 10 events, intervals of shares cover 93% to 99% of cases (events: the smaller of p and 1 - p, times
the effective sample size). Means need more prompts the more skewed they are. Below these limits a report shows the
simulated coverage of the nearest case in `alignzoo.compare.simulated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignzoo.compare.simulated import AREA, MEAN, SHARE

ENOUGH = 10
"""Prompts, and events of a share, above which intervals are within the bounds."""
BOUNDS = (0.93, 0.99)
Cases = Mapping[int, Sequence[tuple[float, float]]]
"""Prompts -> (median skewness or events, coverage) of the simulated cases."""


def of_mean(prompts: int, skewness: float) -> float | None:
    """Return the coverage of a mean with this sample skewness, or None if within bounds."""
    return _outside(_nearest(MEAN, prompts, skewness))


def of_share(prompts: int, events: float) -> float | None:
    """Return the coverage of a share, or None above 10 prompts and 10 events."""
    return None if min(prompts, events) > ENOUGH else _nearest(SHARE, prompts, events)


def of_area(prompts: int, events: float) -> float | None:
    """Return the coverage of an area under the curve, or None if it is within bounds.

    It is None only above 10 prompts and 10 events.
    """
    found = _nearest(AREA, prompts, events)
    return _outside(found) if min(prompts, events) > ENOUGH else found


def _nearest(cases: Cases, prompts: int, place: float) -> float:
    """Return the coverage of the most prompts up to `prompts`, at the nearest place."""
    size = max((n for n in cases if n <= prompts), default=min(cases))
    return min(cases[size], key=lambda case: abs(case[0] - place))[1]


def _outside(coverage: float) -> float | None:
    return None if BOUNDS[0] <= coverage <= BOUNDS[1] else coverage
