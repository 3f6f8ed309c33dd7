"""Recipe files and overrides as nodes: values with the place that wrote each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alignzoo.core.door.file_errors import MissingFile
from alignzoo.core.door.marked_yaml import COMMAND_LINE, MOST_BYTES, MOST_LEVELS, Node, Origin, parse, read_yaml
from alignzoo.core.errors import UserError, kind_of, nearest

__all__ = ["COMMAND_LINE", "MOST_BYTES", "Node", "Origin", "from_value", "parse", "read_file", "read_overrides"]

PYTHON = "recipe in Python"
"""The place of what no file and no command line wrote."""
OVERRIDES = '{"objective.beta": 0.2} or ["objective.beta=0.2"]'


def read_file(path: Path) -> Node:
    """Read a recipe file as a node. Raises UserError with file, line and column."""
    try:
        node = read_yaml(path)
    except MissingFile:
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError("no such recipe", where=str(path), nearest=nearest(path.name, siblings)) from None
    if node is None:
        raise UserError("the recipe is empty", where=str(path))
    if not isinstance(node.value, dict):
        raise UserError(
            "a recipe is a mapping of sections", where=str(node.origin), expected="objective, model, data, train"
        )
    return node


def read_overrides(overrides: Mapping[str, Any] | Iterable[str]) -> list[tuple[list[str], Node]]:
    """Return overrides as paths and nodes.

    They are `a.b=c` words (values in YAML), or a mapping of dotted keys to values.
    """
    origin = Origin(COMMAND_LINE)
    if isinstance(overrides, Mapping):
        return [(_path(key), from_value(value, origin)) for key, value in overrides.items()]
    if isinstance(overrides, str):
        overrides = [overrides]
    if not isinstance(overrides, Iterable):
        raise UserError(f"overrides are {kind_of(overrides)}", where=PYTHON, expected=OVERRIDES)
    pairs = []
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(f"an override is {kind_of(word)}", where=PYTHON, expected=OVERRIDES)
        key, equals, text = word.partition("=")
        if not equals:
            raise UserError(
                f"'{word}' is not an override", where=COMMAND_LINE, expected="key=value, for example objective.beta=0.2"
            )
        pairs.append((_path(key), parse(text, COMMAND_LINE) or Node(None, origin)))
    return pairs


def _path(key: str) -> list[str]:
    parts = str(key).strip().split(".")
    if not all(parts) or len(parts) > MOST_LEVELS:
        raise UserError(
            f"'{key}' is not a key", where=COMMAND_LINE, expected="names joined by dots, for example train.epochs"
        )
    return parts


def from_value(value: Any, origin: Origin) -> Node:
    """Return plain values, components and sections as nodes with one origin."""
    if isinstance(value, BaseModel):
        value = _written(value)
    if isinstance(value, Mapping):
        items = {str(key): from_value(item, origin) for key, item in value.items()}
        return Node(items, origin, dict.fromkeys(items, origin))
    if isinstance(value, list | tuple):
        return Node([from_value(item, origin) for item in value], origin)
    return Node(str(value) if isinstance(value, Path) else value, origin)


def _written(section: BaseModel) -> Any:
    """Return a component as its node, and a section as its values."""
    if hasattr(section, "to_recipe"):
        node = section.to_recipe()
        if isinstance(node, dict) and node.get("from"):  # the start of a run has no source of its own
            del node["name"]
        return node
    fields = type(section).model_fields
    return {fields[key].alias or key: value for key, value in section}
