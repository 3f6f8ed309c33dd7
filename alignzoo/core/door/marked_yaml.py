"""Strict YAML, with the file, line and column of every value.

Errors point to the value that was written, whatever was merged on top of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignzoo.core.door.files import read_text
from alignzoo.core.errors import UserError, first_line

COMMAND_LINE = "command line"
MOST_BYTES, MOST_VALUES, MOST_LEVELS = 200_000, 20_000, 40
"""Limits of a YAML file, against nested aliases that expand to billions of values. Real recipes have about eighty."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a value: a file with line and column (from 1), or the command line."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(slots=True)
class Node:
    """A value with its origin.

    `value` is a scalar, a list of nodes, or a dictionary of nodes by key.
    """

    value: Any
    origin: Origin
    keys: dict[str, Origin] = field(default_factory=dict)
    """Key -> its place, for a dictionary. An error about a key points there."""

    def plain(self) -> Any:
        """Return the value without origins."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 5e-7 as a string, because it has no dot. This loader reads a number."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path, limit: int = MOST_BYTES) -> Node | None:
    """Read a YAML file as a node; None for an empty one.

    Raises:
        BadFile: The file can't be read.
        UserError: It is not a YAML document that can be used. The error has file, line and column.
    """
    return parse(read_text(path, limit), str(path))


def parse(text: str, file: str) -> Node | None:
    """Parse one YAML document; None for an empty one.

    Raises:
        UserError: It is not valid, too long, or nested too deeply. The error has file, line and column.
    """
    if len(text) > MOST_BYTES:
        raise UserError("too long", where=file, expected=f"at most {MOST_BYTES:,} characters")
    try:
        loader = _Loader(text)
        try:
            document = loader.get_single_node()
            return None if document is None else _Reader(loader, file).node(document)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark and file != COMMAND_LINE else file
        raise UserError(f"not YAML: {error.problem or error.context}", where=where) from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {first_line(error)}", where=file) from None
    except (ValueError, OverflowError) as error:  # a date that does not exist, an integer in base 60
        raise UserError(f"not YAML: {error}", where=file) from None
    except RecursionError:
        raise UserError("nested too deeply", where=file) from None


class _Reader:
    """Reader of one document, with limits on the number and the depth of its values."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self.loader, self.file, self.values = loader, file, 0

    def node(self, node: yaml.Node, level: int = 0) -> Node:
        """Convert a YAML node and those within it."""
        mark = node.start_mark
        origin = Origin(self.file) if self.file == COMMAND_LINE else Origin(self.file, mark.line + 1, mark.column + 1)
        self.values += 1
        if self.values > MOST_VALUES:
            raise UserError("too many values", where=self.file, expected=f"at most {MOST_VALUES:,}")
        if level > MOST_LEVELS:
            raise UserError("nested too deeply", where=str(origin), expected=f"at most {MOST_LEVELS} levels")
        if isinstance(node, yaml.CollectionNode) and node.tag not in (
            _Loader.DEFAULT_SEQUENCE_TAG,
            _Loader.DEFAULT_MAPPING_TAG,
        ):
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not allowed", problem_mark=mark)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.node(item, level + 1) for item in node.value], origin)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, origin, level)
        value = self.loader.construct_object(node, deep=True)
        if value is not None and not isinstance(value, str | bool | int | float):  # dates, bytes
            what = f"YAML reads {node.value!r} as a {type(value).__name__}"
            raise UserError(what, where=str(origin), expected="quotation marks around text")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(
                f"{value!r:.60} has half a surrogate", where=str(origin), expected="text of whole characters"
            )
        if isinstance(value, int) and abs(value) >= 2**64:  # Python limits the digits that it prints
            raise UserError("a whole number of more than 64 bits", where=str(origin), expected="a smaller one")
        return Node(value, origin)

    def mapping(self, node: yaml.MappingNode, origin: Origin, level: int) -> Node:
        """Convert a mapping, whose keys must be text and unique."""
        items: dict[str, Node] = {}
        keys: dict[str, Origin] = {}
        for key_node, value_node in node.value:
            key_value = self.node(key_node, level + 1)
            key = key_value.value
            if not isinstance(key, str):
                written = getattr(key_node, "value", key)
                raise UserError(
                    f"the key {written!r} is read as {key!r}, not as text",
                    where=str(key_value.origin),
                    expected="a name, in quotation marks",
                )
            if key in items:
                raise UserError(f"'{key}' is given twice (first at line {keys[key].line})", where=str(key_value.origin))
            items[key], keys[key] = self.node(value_node, level + 1), key_value.origin
        return Node(items, origin, keys)
