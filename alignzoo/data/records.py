"""A row from one record of a table, whatever its shape: a pair, a labelled completion or a ranked list.

    {"prompt", "chosen", "rejected"}                       a pair; see `alignzoo.data.preference`
    {"prompt", "completion", "label": true}                unpaired
    {"prompt", "completions": [...], "scores": [...]}      ranked; or "ranks", 1 for the best; or best first

Numbers beside them are the row's columns; `chosen_score` and `rejected_score` (or `score_chosen`, ...) are a column
`score` of the two completions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from alignzoo.data.preference import Columns, completions_row, preference_row
from alignzoo.data.rows import Row, Skipped
from alignzoo.errors import UserError, nearest

SIDES = ("chosen", "rejected")


def record_row(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    """A row from one record. Raises UserError (with `where`) for what is missing or of the wrong type."""
    pair = columns.chosen in record or columns.rejected in record
    if "completions" in record and not pair:
        return _ranked(id, record, columns, where)
    if "completion" in record and not pair:
        return _unpaired(id, record, columns, where)
    row = preference_row(id, record, columns, where)
    return row if isinstance(row, Skipped) else _with_numbers(row, record)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Every finite number of a record."""
    return {
        key: float(value) for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }  # fmt: skip


def _with_numbers(row: Row, record: dict[str, Any]) -> Row:
    own: tuple[dict[str, float], ...] = ({}, {})
    rest = {}
    for key, value in numbers(record).items():
        for side, name in enumerate(SIDES):
            if key.startswith(f"{name}_") or key.endswith(f"_{name}"):
                own[side][key.removeprefix(f"{name}_").removesuffix(f"_{name}")] = value
                break
        else:
            rest[key] = value
    completions = tuple(replace(one, columns=mine) for one, mine in zip(row.completions, own, strict=True))
    return replace(row, columns=rest, completions=completions)


def _unpaired(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    if "label" not in record:
        raise UserError(
            "a completion without a label", where=where, expected="label: true (desirable) or false",
            nearest=nearest("label", record),
        )  # fmt: skip
    if record["label"] not in (True, False, 0, 1):
        raise UserError(f"label is {record['label']!r}", where=where, expected="true (desirable) or false")
    row = completions_row(id, record, columns.prompt, [record["completion"]], where)
    if isinstance(row, Skipped):
        return row
    only = replace(row.completions[0], columns={"desirable": float(record["label"])})
    rest = {name: value for name, value in numbers(record).items() if name != "label"}
    return replace(row, completions=(only,), columns=rest)


def _ranked(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    texts = record["completions"]
    if not isinstance(texts, list | tuple) or len(texts) < 2:
        raise UserError("completions is not a list of two or more", where=where, expected="a list of completions")
    scores = record.get("scores")
    if scores is None and record.get("ranks") is not None:
        scores = [-rank for rank in _numbers_of(record, "ranks", len(texts), where)]
    elif scores is not None:
        scores = _numbers_of(record, "scores", len(texts), where)
    row = completions_row(id, record, columns.prompt, texts, where)
    if isinstance(row, Skipped):
        return row
    completions = row.completions
    if scores is not None:
        completions = tuple(replace(one, columns={"score": s}) for one, s in zip(completions, scores, strict=True))
        completions = tuple(sorted(completions, key=lambda one: -one.columns["score"]))  # stable: ties keep their order
    return replace(row, completions=completions, columns=numbers(record))


def _numbers_of(record: dict[str, Any], name: str, count: int, where: str) -> list[float]:
    values = record[name]
    fine = isinstance(values, list | tuple) and len(values) == count
    if not fine or any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in values):
        raise UserError(f"{name} is not a list of {count} numbers", where=where, expected="one for each completion")
    return [float(value) for value in values]
