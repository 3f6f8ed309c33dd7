"""Access to a loss's inputs: reading one that was not declared raises `NotDeclared`."""

from __future__ import annotations

from typing import Any


class NotDeclared(AttributeError):
    """An objective read a field that it did not declare."""


def declared(value: Any, field_name: str, how: str) -> Any:
    """Return the value; for None, raise NotDeclared with `how`, the missing declaration."""
    if value is None:
        raise NotDeclared(f"undeclared input, {field_name}: write `{how}` in the class")
    return value
