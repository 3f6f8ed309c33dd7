"""Read numbers from the values of a record, and keep the values that JSON holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return every finite number of a record by its column; true and false are 1 and 0."""
    found = {key: as_number(value) for key, value in record.items()}
    return {key: value for key, value in found.items() if value is not None}


def as_number(value: Any) -> float | None:
    """Return a number, a numeric text or a boolean as float; None for anything else.

    True is 1 and false is 0.
    """
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # text, or an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def plain_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns whose values JSON holds. Images, dates and the like are left out."""
    return {name: value for name, value in record.items() if isinstance(name, str) and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return (
        value is None
        or isinstance(value, str | int | float)
        or (isinstance(value, list) and all(map(_is_plain, value)))
    )
