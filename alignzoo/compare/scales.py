"""Confidence intervals of shares, positive figures and areas under a curve.

Each of these figures has a scale of its own.

A share has Wilson's interval (1927) at the effective sample size n = p (1 - p) / se^2 (Korn and Graubard 1998), with
the standard error and the critical value of the clustered model. At p = 0 or 1 that variance is 0 and n is the number
of prompts. A difference of two shares gets two pseudo-observations, half a prompt of each outcome of a pair (Agresti
and Min 2005), so that a few prompts on which both differ do not look like certainty.

Costs are positive and multiply: their mean is geometric and their interval Student's on the log scale. Their difference
is the relative one, geometric mean over the baseline's less 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignzoo.compare.coverage import of_area, of_mean, of_share
from alignzoo.compare.statistics import Interval, interval, paired_difference, student

SHARE, POSITIVE, COST = "share", "positive", "cost"
"""Scales: from 0 to 1; not below 0; above 0 and compared by ratio. "" is any number."""
Values = NDArray[np.float64]


def estimate(
    values: Values, scale: str = "", groups: ArrayLike | None = None, weights: ArrayLike | None = None
) -> Interval:
    """Return the 95% interval of the mean of `values`, shape (S, N), on its scale.

    Args:
        values: Numbers of S seeds and N examples.
        scale: One of the scales.
        groups: Prompt of each example.
        weights: Weights of `pseudovalues` for an area under the curve.

    Raises:
        ValueError: As `interval` does.
    """
    if scale == COST and _all_positive(values):
        logs = interval(np.log(values), groups=groups)
        varied = 0 < logs.se < math.inf
        return _geometric(logs, math.exp, lambda mean, se: mean * se) if varied else interval(values, groups=groups)
    if scale == SHARE:
        return _wilson(interval(values, groups=groups, skewed=False, weights=weights), weights is not None)
    found = _with_coverage(interval(values, groups=groups, weights=weights))
    nonnegative = scale in (POSITIVE, COST) and found.mean >= 0
    return replace(found, low=max(0.0, found.low)) if nonnegative else found


def paired(
    values: Values,
    baseline: Values,
    scale: str = "",
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Interval:
    """Return the 95% interval of the mean paired difference to `baseline`.

    The difference of costs is relative.

    Raises:
        ValueError: As `alignzoo.compare.statistics.difference` does.
    """
    if scale == COST and _all_positive(values) and _all_positive(baseline):
        logs = interval(paired_difference(np.log(values), np.log(baseline)), groups=groups)
        return _geometric(logs, math.expm1, lambda mean, se: (1 + mean) * se)
    by = paired_difference(values, baseline)
    if scale != SHARE:
        return _with_coverage(interval(by, groups=groups, weights=weights))
    found = interval(by, groups=groups, skewed=False, weights=weights)
    if np.isin(values, (0.0, 0.5, 1.0)).all() and np.isin(baseline, (0.0, 0.5, 1.0)).all():
        found = _agresti_min(found)
    return _with_coverage(replace(found, low=max(-1.0, found.low), high=min(1.0, found.high)))


def relative(scale: str, *values: Values) -> bool:
    """Return True if `paired` gives a relative difference."""
    return scale == COST and all(map(_all_positive, values))


def _wilson(found: Interval, area: bool) -> Interval:
    p = min(1.0, max(0.0, found.mean))
    if math.isinf(found.se):
        return replace(found, low=0.0, high=1.0)
    if 0 < p < 1:
        if not found.se:
            return found
        n, c = p * (1 - p) / found.se**2, found.critical
    else:
        n = found.effective if area else float(found.clusters)
        c = student(max(1, round(n) - 1))
    center = (p + c**2 / (2 * n)) / (1 + c**2 / n)
    half = c / (1 + c**2 / n) * math.sqrt(p * (1 - p) / n + c**2 / (4 * n**2))
    low = 0.0 if p == 0 else max(0.0, center - half)
    high = 1.0 if p == 1 else min(1.0, center + half)
    return replace(
        found, low=low, high=high, coverage=(of_area if area else of_share)(round(found.effective), n * min(p, 1 - p))
    )


def _agresti_min(found: Interval) -> Interval:
    if math.isinf(found.se):
        return found
    critical = found.critical if found.se else student(max(1, found.clusters - 1))
    se = math.hypot(found.se, 1 / found.clusters)
    return replace(found, se=se, critical=critical, low=found.mean - critical * se, high=found.mean + critical * se)


def _with_coverage(found: Interval) -> Interval:
    return replace(found, coverage=of_mean(round(found.effective), abs(found.skewness)))


def _geometric(logs: Interval, back: Callable[[float], float], spread: Any) -> Interval:
    mean = back(logs.mean)
    if math.isinf(logs.se):
        return replace(logs, mean=mean)
    return replace(logs, mean=mean, low=back(logs.low), high=back(logs.high), se=spread(mean, logs.se))


def _all_positive(values: Values) -> bool:
    return bool((np.asarray(values) > 0).all())
