"""Recognize the rows of a file: the format that reads them, and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr

from alignzoo.core.errors import UserError
from alignzoo.data.formats.guess import closest, renamed
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import places, rows_of
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped

KINDS = {
    "pairs": "pairs of a chosen and a rejected completion",
    "labels": "completions with a label",
    "lists": "ranked lists of completions",
    "texts": "texts or chats to imitate",
    "prompts": "prompts alone",
}
"""What rows can be -> words for it."""
KEPT, COUNTED = 1_000, 20_000
"""Rows that are looked at, and rows that are counted at most."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """The rows of a file, and how they are read."""

    kind: str
    """One of `KINDS`: what most of the rows are."""
    format: dict[str, str | list[str]]
    """The fields of the format `records` that differ from its defaults."""
    rows: list[Row]
    """The first ones, at most `KEPT`."""
    count: int
    """The usable training rows, of the first `COUNTED` ones."""
    whole: bool
    """True if all rows were counted."""
    tested: bool
    """True if the file has a test split of its own."""

    @property
    def is_chat(self) -> bool:
        """True if the first row is a chat, for a tokenizer's template."""
        return not isinstance(self.rows[0].prompt, str)


def recognize(path: str) -> Recognized:
    """Read the first rows of a file or folder in the format that fits its first record.

    Raises:
        UserError: It can't be read, its columns fit no format, or no row is usable.
    """
    record, where = _first_record(path)
    fields = _fields(record, where)
    source = Files(path=path, format=Records(**fields))
    splits = source.splits()
    rows: list[Row] = []
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    count = read = 0
    for row in rows_of(source, places(source)[0]):
        read += 1
        if isinstance(row, Skipped):
            reasons[row.reason] += 1
        else:
            count += 1
            if len(rows) < KEPT:
                rows.append(row)
                kinds[_kind(row)] += 1
        if read == COUNTED:
            break
    if not rows:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common(3))
        raise UserError(f"no row is usable: {why}" if why else "no rows", where=path)
    return Recognized(kinds.most_common(1)[0][0], fields, rows, count, read < COUNTED, len(splits) > 1)


class _Seen(Format):
    """Keep the records as they are."""

    name = "seen"
    _record: tuple[Mapping[str, Any], str] | None = PrivateAttr(None)

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        self._record = record, where
        return Skipped(id, "seen")


def _first_record(path: str) -> tuple[Mapping[str, Any], str]:
    seen = _Seen()
    source = Files(path=path, format=seen)
    next(source.read(source.splits()[0]), None)
    format = source.format  # pydantic may have copied it
    found = format._record if isinstance(format, _Seen) else None
    if found is None:
        raise UserError("no rows", where=path, expected="a record such as a pair, a chat or a prompt")
    return found


def _fields(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of the format that reads a record, by the closest reading."""
    try:
        Records().row("first", record, where)
        return {}
    except UserError as error:
        shape, columns, missing = closest(record)
        fields = renamed(columns, record)
        if not shape or missing or not fields:
            raise
        try:
            Records(**fields).row("first", record, where)
        except UserError:
            raise error from None
        return fields


def _kind(row: Row) -> str:
    if not row.completions:
        return "prompts"
    if all("desirable" in one.columns for one in row.completions):
        return "labels"
    return {1: "texts", 2: "pairs"}.get(len(row.completions), "lists")
