"""Flatten nested values to dotted keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Children = Callable[[Any], Iterable[tuple[str, Any]] | None]


def mapping_items(value: Any) -> Iterable[tuple[str, Any]] | None:
    """Return the items of a mapping, and None for any other value."""
    return value.items() if isinstance(value, Mapping) else None


def dotted_items(value: Any, children: Children = mapping_items, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of a nested value with its dotted key, such as `train.optimizer.name`.

    Args:
        value: The nested value.
        children: Returns the keys and values below a value, or None for a leaf.
        prefix: The key of `value` itself.
    """
    below = children(value)
    if below is None:
        yield prefix, value
        return
    for key, child in below:
        yield from dotted_items(child, children, f"{prefix}.{key}" if prefix else key)
