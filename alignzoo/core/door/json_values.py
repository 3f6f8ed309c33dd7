"""JSON and JSON lines, checked against a schema.

A schema is a dataclass, a pydantic model, or a type such as `dict[str, int]`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, overload

from alignzoo.core.door.file_errors import BadFile, of_os_error
from alignzoo.core.door.files import TEXT_BYTES, open_file, read_bytes
from alignzoo.core.errors import Problem

T = TypeVar("T")
MOST_LEVELS = 60
LINE_BYTES = 16_000_000
SHOWN_PROBLEMS = 5
_MAY_OVERFLOW = re.compile(rb"[eE]\+?\d{3}|\d{300}")


@overload
def parse_json(data: bytes | str, where: Path | str, schema: type[T], nan: bool = False) -> T: ...
@overload
def parse_json(data: bytes | str, where: Path | str, schema: Any = None, nan: bool = False) -> Any: ...
def parse_json(data: bytes | str, where: Path | str, schema: Any = None, nan: bool = False) -> Any:
    """Parse JSON.

    Args:
        data: UTF-8 bytes or text.
        where: The file, for errors.
        schema: The type of the value. Types are not converted: "1" is no number. None accepts any value.
        nan: Accept NaN and Infinity.

    Raises:
        BadFile: It is no JSON, nested more than 60 levels deep, has half a surrogate, NaN, a number out of range, or is
            none of the schema.
    """
    from pydantic_core import from_json

    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        value = from_json(raw, allow_inf_nan=nan)
    except ValueError as error:
        raise BadFile(f"not JSON: {error}", where=str(where)) from None
    if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS or (not nan and _MAY_OVERFLOW.search(raw)):
        _check(value, where, nan)
    return value if schema is None else validated(value, where, schema, raw)


def _check(value: Any, where: Path | str, nan: bool) -> None:
    """Check the depth of a value and its numbers."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        if not nan and any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise BadFile("a number is out of range", where=str(where), expected="at most 1.8e308")
        level = [
            inner
            for outer in level if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]  # fmt: skip
        if not level:
            return
    raise BadFile("nested too deeply", where=str(where), expected=f"at most {MOST_LEVELS} levels")


def validated(value: Any, where: Path | str, schema: Any, raw: bytes | None = None) -> Any:
    """Return a value as the schema's type. Raises BadFile with the place of what differs.

    Args:
        value: JSON values.
        where: The file, for errors.
        schema: As of `parse_json`.
        raw: The JSON that the value was parsed from, if it is there.
    """
    from pydantic import ValidationError
    from pydantic_core import to_json

    try:
        return _adapter(schema).validate_json(to_json(value) if raw is None else raw, strict=True)
    except ValidationError as error:
        problems = [_problem(item, where) for item in error.errors(include_url=False)[:SHOWN_PROBLEMS]]
        raise BadFile(problems) from None


def _problem(item: Any, where: Path | str) -> Problem:
    at = ".".join(str(part) for part in item["loc"])
    message = f"{item['msg'][0].lower()}{item['msg'][1:]}"
    got = "" if item["type"] == "missing" else f" (got {item['input']!r:.60})"
    return Problem(f"{at}: {message}{got}" if at else f"{message}{got}", str(where))


@lru_cache
def _adapter(schema: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


@overload
def read_json(path: Path, schema: type[T], limit: int = TEXT_BYTES, nan: bool = False) -> T: ...
@overload
def read_json(path: Path, schema: Any = None, limit: int = TEXT_BYTES, nan: bool = False) -> Any: ...
def read_json(path: Path, schema: Any = None, limit: int = TEXT_BYTES, nan: bool = False) -> Any:
    """Read a JSON file: `parse_json` of a regular file of at most `limit` bytes."""
    return parse_json(read_bytes(path, limit), path, schema, nan)


def read_checked(path: Path, schema: Any) -> Any:
    """Read a JSON file as `read_json` does, but return plain values of the schema's form."""
    raw = read_bytes(path)
    value = parse_json(raw, path)
    validated(value, path, schema, raw)
    return value


def parse_row(data: str, where: Path | str) -> Any:
    """Parse a row of data that we wrote. It may hold half a surrogate, as the user's data did.

    Raises:
        BadFile: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"not JSON: {error}", where=str(where)) from None


def read_json_lines(path: Path, schema: Any = None, nan: bool = False) -> Iterator[Any]:
    """Yield the plain values of a JSON lines file that this package wrote.

    A last line that a crash has cut is left out.

    Raises:
        BadFile: As of `parse_json`, with the number of the line; or a line has more than 16 MB.
    """
    with open_file(path) as file:
        for number in range(1, 2**63):
            try:
                line = file.readline(LINE_BYTES + 1)
            except OSError as error:
                raise of_os_error(error, path) from None
            if len(line) > LINE_BYTES:
                raise BadFile(
                    "the line is too long", where=f"{path}:{number}", expected=f"at most {LINE_BYTES:,} bytes"
                )
            if not line.endswith(b"\n"):
                return
            value = parse_json(line, f"{path}:{number}", nan=nan)
            if schema is not None:
                validated(value, f"{path}:{number}", schema, line)
            yield value
