"""Bounds of what replies are drawn with, in recipes, comparisons and on the command line."""

from __future__ import annotations

import math

LEAST_TEMPERATURE, LEAST_TOP_P = 1e-3, 1e-6
"""Below them the logits overflow, or the probabilities are rounded to nothing."""


def is_temperature(value: float) -> bool:
    """Return True for 0, which stands for the likeliest token, and for a divisor of logits."""
    return value == 0 or LEAST_TEMPERATURE <= value < math.inf


def check_temperature(value: float) -> float:
    """Return a temperature that is 0, for the likeliest token, or a divisor of logits.

    Raises:
        ValueError: It is another number.
    """
    if not is_temperature(value):
        raise ValueError(f"{value} is neither 0 nor a number of at least {LEAST_TEMPERATURE}")
    return value
