"""The parts of a record: its columns under the names that the shapes of rows use.

A format can rename every part, read several columns as `completions` with their `scores` or `ranks`, and leave a part
out (null). A renamed column must be in every record, so that a misspelled name is an error.

`completions` may be objects, as in UltraFeedback: `completion` and `scores` are then names of their fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.guess import line_for_fields
from alignzoo.data.formats.values import numbers

PARTS = (
    "prompt", "chosen", "rejected", "completion", "completions", "label", "scores", "ranks", "preferred", "messages",
    "conversations", "instruction", "input", "output", "system", "history", "text", "tools", "chat_template_kwargs",
)  # fmt: skip
LISTS = ("completions", "scores", "ranks")
"""Parts that can be made of several columns."""
IN_OBJECTS = {"completion": "completion", "scores": "score", "ranks": "rank"}
"""Part -> field of the objects in `completions`, unless it is renamed."""
Names = Mapping[str, str | Sequence[str] | None]
"""Part -> column, columns, or None for a part that is not read. Parts that are not named have columns of their name."""


class Parts:
    """Parts of one record.

    Reading a part marks its columns as used. `others` are the columns that are left.

    Args:
        record: The record.
        names: Names of its columns.
        where: The place of the record, for errors.

    Raises:
        UserError: A renamed column is missing.
    """

    def __init__(self, record: Mapping[str, Any], names: Names, where: str) -> None:
        self.record, self.where = record, where
        self._columns: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, Any] = {}
        self._used: set[str] = set()
        self.unread = {part for part, columns in names.items() if columns is None}
        """Parts that the format leaves out."""
        self.numbers_of_completions: list[dict[str, float]] | None = None
        """Numbers of each object in `completions`."""
        renamed = {part: (name,) if isinstance(name, str) else tuple(name or ()) for part, name in names.items()}
        renamed = {part: columns for part, columns in renamed.items() if columns != (part,)}
        taken = {column for columns in renamed.values() for column in columns}
        objects = _objects(record, renamed.get("completions", ("completions",)))
        for part in PARTS:
            if objects and part in IN_OBJECTS:
                continue
            columns = renamed.get(part, (part,))
            if part not in renamed and (part not in record or part in taken):
                continue
            for column in columns:
                column_of(record, column, where)
            if columns:
                values = [record[column] for column in columns]
                self._columns[part] = columns
                self._values[part] = values if isinstance(names.get(part), list | tuple) else values[0]
        if objects:
            self._open(objects, renamed)

    def _open(self, objects: Sequence[Mapping[str, Any]], renamed: Mapping[str, tuple[str, ...]]) -> None:
        """Take the parts of `completions` from its objects."""
        used = set()
        for part, own in IN_OBJECTS.items():
            field = renamed.get(part, (own,))[0] if renamed.get(part, (own,)) else ""
            holds = [field in one for one in objects]
            needed = part == "completion" or part in renamed
            if field and needed and not all(holds):
                number = holds.index(False) + 1
                raise UserError(
                    f"completion {number} has no field '{field}'", where=self.place("completions"),
                    expected=f"one of {', '.join(objects[number - 1])}", nearest=nearest(field, objects[number - 1]),
                    hint=line_for_fields(objects[number - 1]),
                )  # fmt: skip
            if all(holds):
                used.add(field)
                name = "completions" if part == "completion" else part
                self._values[name] = [one[field] for one in objects]
                self._columns[name] = self._columns["completions"]
            elif part in self.record and part not in renamed:
                self._values[part], self._columns[part] = self.record[part], (part,)
        self.numbers_of_completions = [
            {key: value for key, value in numbers(one).items() if key not in used} for one in objects
        ]

    def __contains__(self, part: str) -> bool:
        return part in self._values

    def __getitem__(self, part: str) -> Any:
        """Return the value of a part. Raises UserError with the nearest column if there is none."""
        if part not in self._values:
            column_of(self.record, part, self.where)
        self._used.update(self._columns.get(part, ()))
        return self._values.get(part)

    def get(self, part: str) -> Any:
        """Return the value of a part, None if there is none."""
        return self[part] if part in self else None

    def has_value(self, part: str) -> bool:
        """Return True for a part that is there and not null."""
        return self._values.get(part) is not None

    def column(self, part: str) -> str:
        """Return the name of a part's column, or its own name."""
        return ", ".join(self._columns.get(part, (part,)))

    def columns(self, part: str) -> tuple[str, ...]:
        """Return the names of a part's columns."""
        return self._columns.get(part, (part,))

    def place(self, part: str) -> str:
        """Return the place of a part, for errors."""
        return f"{self.where}: {self.column(part)}"

    @property
    def others(self) -> dict[str, Any]:
        """The columns that have not been used."""
        return {name: value for name, value in self.record.items() if name not in self._used}


def column_of(record: Mapping[str, Any], name: str, where: str) -> Any:
    """Return the value of a column.

    Raises:
        UserError: The column is missing. The error gives the nearest name.
    """
    if name not in record:
        found = f"one of {', '.join(map(str, record))}" if record else "a record with columns"
        raise UserError(f"no column '{name}'", where=where, expected=found, nearest=nearest(name, map(str, record)))
    return record[name]


def _objects(record: Mapping[str, Any], columns: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Return `completions` if it is a list of objects but not of messages, else ()."""
    value = record.get(columns[0]) if len(columns) == 1 else None
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        return ()
    return () if any("role" in one or "from" in one for one in value) else value
