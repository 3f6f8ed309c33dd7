"""Read records from JSON: lines, an array, multi-line objects, or a list under `data`.

The content of the file decides, not its suffix: both `.json` and `.jsonl` are in use for all of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo.core.errors import UserError, kind_of
from alignzoo.data.sources.json_stream import LONGEST_VALUE, JsonStream, too_long

Record = dict[str, Any]


def json_records(file: Path, raw: BinaryIO) -> Iterator[tuple[int, Record]]:
    """Yield (line, record) of JSON lines, or (number, record) of other JSON, from 1.

    Other JSON is an array or multi-line objects.

    Raises:
        UserError: The text is not JSON, a record is not an object, or a line or value is over the limit; the error
            names file and line.
    """
    lines = text_lines(raw, file)
    number, first = next(((number, line) for number, line in lines if line.strip()), (0, b""))
    if not number:
        return
    if not first.lstrip().startswith(b"[") and len(first) <= LONGEST_VALUE and _ends_in_line(first):
        yield from _lines(file, number, first, lines)
    else:
        yield from _items(file, _values(JsonStream(file, raw, first, number)))


def text_lines(raw: BinaryIO, file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of a file, from 1. Raises UserError for a line over the limit.

    The beginning of a longer first line is yielded, since an array may be on one line.
    """
    number = 0
    while line := raw.readline(LONGEST_VALUE + 1):
        number += 1
        if len(line) > LONGEST_VALUE and number > 1:
            raise too_long(f"{file}:{number}")
        yield number, line


def _ends_in_line(line: bytes) -> bool:
    """Return False if the line may start a multi-line object.

    Such a line is neither complete nor broken before its end.
    """
    text = line.decode("utf-8", errors="replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos < len(text)
    except (RecursionError, ValueError):
        pass
    return True


def _lines(file: Path, number: int, first: bytes, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Record]]:
    rest = ((number, line) for number, line in lines if line.strip())
    second = next(rest, None)
    record = parsed(first.rstrip(b"\r\n"), f"{file}:{number}")
    inside = _inside(record) if second is None else None
    if inside is not None:
        yield from _items(file, iter(inside))
        return
    others = chain([second], rest) if second else rest
    pairs = ((at, parsed(line.rstrip(b"\r\n"), f"{file}:{at}")) for at, line in others)
    for at, value in chain([(number, record)], pairs):
        if not isinstance(value, dict):
            raise UserError(f"the line is {kind_of(value)}", where=f"{file}:{at}", expected="a JSON object")
        yield at, value


def _values(stream: JsonStream) -> Iterator[Any]:
    """Yield the values of an array, or of a sequence of objects."""
    if stream.next() == "[":
        yield from stream.items()
        stream.end()
        return
    only = stream.value()
    if not stream.next():
        inside = _inside(only)
        yield from [only] if inside is None else inside
        return
    yield only
    while stream.next():
        yield stream.value()


def _inside(record: Any) -> list[Record] | None:
    """Return the records of {"version": ..., "data": [...]}, the layout of SQuAD and others."""
    data = record.get("data") if isinstance(record, dict) else None
    return data if isinstance(data, list) and data and all(isinstance(item, dict) for item in data) else None


def _items(file: Path, items: Iterator[Any]) -> Iterator[tuple[int, Record]]:
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
