"""Read records from JSON: lines, an array, pretty-printed objects, or an object with a list under `data`.

The content of the file decides, not its suffix: both `.json` and `.jsonl` are in use for all of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from alignzoo.core.errors import UserError, kind_of

Record = dict[str, Any]
SPACE = re.compile(r"\s*")


def json_records(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, Record]]:
    """Yield (line, record) of JSON lines, or (number, record) of an array and of multi-line objects, from 1.

    Raises:
        UserError: The text is not JSON or a record is not an object; the error names file and line.
    """
    skipped = 0
    for first in lines:
        if first.strip():
            break
        skipped += 1
    else:
        return
    if not first.lstrip().startswith(b"[") and _ends_in_line(first):
        yield from _lines(file, first, lines, skipped)
        return
    whole = b"\n" * skipped + b"".join(chain([first], lines))
    yield from _whole(file, whole)


def _ends_in_line(line: bytes) -> bool:
    """Return False if the line may start a multi-line object: it is neither complete nor broken before its end."""
    text = line.decode("utf-8", errors="replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos < len(text)
    except (RecursionError, ValueError):
        pass
    return True


def _lines(file: Path, first: bytes, rest: Iterator[bytes], skipped: int) -> Iterator[tuple[int, Record]]:
    second = next((pair for pair in enumerate(rest, skipped + 2) if pair[1].strip()), None)
    record = parsed(first.rstrip(b"\r\n"), f"{file}:{skipped + 1}")
    if second is None and isinstance(record, dict) and _inside(record) is not None:
        yield from _items(file, _inside(record) or [])
        return
    pairs = ((number, parsed(raw.rstrip(b"\r\n"), f"{file}:{number}")) for number, raw in _numbered(second, rest))
    for number, value in chain([(skipped + 1, record)], pairs):
        if not isinstance(value, dict):
            raise UserError(f"the line is {kind_of(value)}", where=f"{file}:{number}", expected="a JSON object")
        yield number, value


def _numbered(second: tuple[int, bytes] | None, rest: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    if second is not None:
        yield second
        yield from ((number, raw) for number, raw in enumerate(rest, second[0] + 1) if raw.strip())


def _whole(file: Path, raw: bytes) -> Iterator[tuple[int, Record]]:
    """Parse an array, or a sequence of objects."""
    text = as_text(raw, str(file))
    decoder, values, at = json.JSONDecoder(), [], 0
    try:
        while (at := SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, at = decoder.raw_decode(text, at)
            values.append(value)
    except json.JSONDecodeError as error:
        where = f"{file}:{error.lineno}"
        raise UserError(f"not JSON: {error.msg} at column {error.colno}", where=where, expected="JSON") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"invalid JSON: {error}", where=str(file)) from None
    only = values[0] if len(values) == 1 else None
    inside = _inside(only) if isinstance(only, dict) else None
    yield from _items(file, only if isinstance(only, list) else values if inside is None else inside)


def _inside(record: Record) -> list[Record] | None:
    """Return the records of {"version": ..., "data": [...]}, the layout of SQuAD and others."""
    data = record.get("data")
    return data if isinstance(data, list) and data and all(isinstance(item, dict) for item in data) else None


def _items(file: Path, items: list[Any]) -> Iterator[tuple[int, Record]]:
    for number, record in enumerate(items, 1):
        if not isinstance(record, dict):
            raise UserError(f"item {number} is {kind_of(record)}", where=str(file), expected="a JSON object")
        yield number, record


def parsed(raw: bytes, where: str) -> Any:
    """Parse one line. Raises UserError if it is not JSON."""
    try:
        return json.loads(as_text(raw, where))
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error.msg} at column {error.colno}", where=where, expected="JSON") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise UserError(f"invalid JSON: {error}", where=where) from None


def as_text(raw: bytes, where: str) -> str:
    """Decode UTF-8. Raises UserError with the position of an invalid byte."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is not UTF-8", where=where) from None
