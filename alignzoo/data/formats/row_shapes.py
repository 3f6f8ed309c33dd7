"""Detect the shape of a record and build its row: a pair, a labeled completion or a ranked list.

    {"prompt", "chosen", "rejected"}                       a pair; see `alignzoo.data.formats.pairs`
    {"prompt", "completion", "label": true}                unpaired; without a label data of SFT
    {"prompt", "completions": [...], "scores": [...]}      ranked; or "ranks", 1 for the best; or best first
    {"messages"}, {"text"}, ...                            SFT; see `alignzoo.data.formats.training_texts`

Other numbers are the row's columns, true and false among them as 1 and 0. `chosen_score` and `rejected_score` (or
`score_chosen`, ...) are a column `score` of the two completions, and so is every list of one number for each of
`completions`. Numbers and labels may be text, as in CSV. A row is a tie if its column `tie` is 1, or if all scores of
a list are equal.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.guess import unknown_shape
from alignzoo.data.formats.pairs import Columns, column_of, completions_row, preference_row
from alignzoo.data.formats.training_texts import chat_text, instruction_text, prompted_text, whole_text
from alignzoo.interfaces.rows import TIE, Row, Skipped

ALPACA = ("instruction", "input", "output")
NOT_COLUMNS = ("prompt", "completions", "scores", "ranks", "tools")
"""Lists that are no further columns of a record with `completions`."""
LABELS = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}
"""Lower-case text of labels in JSON and spreadsheets -> value."""


def record_row(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    """Build a row from one record.

    Raises:
        UserError: A column is missing or has a value of the wrong type; the error names `where`.
    """
    pair = columns.chosen in record or columns.rejected in record
    if "completions" in record and not pair:
        return _ranked(id, record, columns, where)
    if columns.completion in record and not pair:
        return _single(id, record, columns, where)
    sft = None if pair else _training_text(id, record, columns, where)
    if sft is not None:
        return replace(sft, columns=_others(record)) if isinstance(sft, Row) else sft
    if not pair and record:
        raise unknown_shape(record, where)
    row = preference_row(id, record, columns, where)
    return row if isinstance(row, Skipped) else _with_numbers(row, record, columns)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Return every finite number of a record by its column; true is 1 and false is 0."""
    found = {key: _number(value) for key, value in record.items()}
    return {key: value for key, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return _as_label(value)
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # text, or an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _with_numbers(row: Row, record: dict[str, Any], columns: Columns) -> Row:
    sides = (("chosen", columns.chosen), ("rejected", columns.rejected))
    own: tuple[dict[str, float], ...] = ({}, {})
    rest = {}
    for key, value in numbers(record).items():
        if key in columns:
            continue
        for side, names in enumerate(sides):
            name = next((_of(key, word) for word in names if _of(key, word)), "")
            if name:
                own[side][name] = value
                break
        else:
            rest[key] = value
    completions = tuple(replace(one, columns=mine) for one, mine in zip(row.completions, own, strict=True))
    return replace(row, columns=rest, completions=completions)


def _of(key: str, side: str) -> str:
    """Return `score` for `chosen_score` and `score_chosen`; "" for a key without this side."""
    if key.startswith(f"{side}_"):
        return key.removeprefix(f"{side}_")
    return key.removesuffix(f"_{side}") if key.endswith(f"_{side}") else ""


def _training_text(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped | None:
    """Build a row of SFT. None if the record has the columns of no such row."""
    for name in (columns.messages, "conversations"):
        if name in record:
            return chat_text(id, record, name, where)
    if "instruction" in record and "output" in record:
        return instruction_text(id, record, ALPACA, where)
    return whole_text(id, record, columns.text, where) if columns.text in record else None


def _as_label(value: Any) -> float | None:
    """Return a label as 1 or 0; None for any other value."""
    return LABELS.get(str(value).lower().removesuffix(".0"))


def _single(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    if "label" not in record:
        close = nearest("label", record)
        if close and _as_label(record[close]) is not None:  # misspelled, it would train on undesirable completions
            raise UserError(
                "a completion has no label", where=where, expected="label: true (desirable) or false", nearest=close
            )
        column_of(record, columns.prompt, where)
        row = prompted_text(id, record, columns.prompt, columns.completion, where)
        others = _others(record, columns.prompt, columns.completion)
        return replace(row, columns=others) if isinstance(row, Row) else row
    label = _as_label(record["label"])
    if label is None:
        raise UserError(f"label is {record['label']!r}", where=where, expected="true (desirable) or false")
    row = completions_row(id, record, columns.prompt, [record[columns.completion]], where)
    if isinstance(row, Skipped):
        return row
    only = replace(row.completions[0], columns={"desirable": label})
    return replace(row, completions=(only,), columns=_others(record, columns.prompt, columns.completion, "label"))


def _others(record: dict[str, Any], *known: str) -> dict[str, float]:
    return {name: value for name, value in numbers(record).items() if name not in known}


def _ranked(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    texts = record["completions"]
    if not isinstance(texts, list | tuple) or len(texts) < 2:
        raise UserError("completions is not a list of two or more", where=where, expected="a list of completions")
    scores = _scores(record, len(texts), where)
    row = completions_row(id, record, columns.prompt, texts, where)
    if isinstance(row, Skipped):
        return row
    lists = {name: [float(_number(one) or 0) for one in record[name]] for name in _lists(record, len(texts))}
    if scores is not None:
        lists["score"] = scores
    own = [{name: values[k] for name, values in lists.items()} for k in range(len(texts))]
    completions = [replace(one, columns=mine) for one, mine in zip(row.completions, own, strict=True)]
    if scores is not None:
        completions.sort(key=lambda one: -one.columns["score"])  # stable: ties keep their order
    row = replace(row, completions=tuple(completions), columns=_others(record, columns.prompt))
    return replace(row, columns={**row.columns, TIE: 1.0}) if row.scores_are_equal else row


def _scores(record: dict[str, Any], count: int, where: str) -> list[float] | None:
    """Return one number for each completion, larger is better; None if they are listed best first."""
    given = [name for name in ("scores", "ranks") if record.get(name) is not None]
    if len(given) > 1:
        raise UserError("the record has both scores and ranks", where=where, expected="one of them")
    if given:
        sign = 1 if given == ["scores"] else -1
        return [sign * value for value in _numbers_of(record, given[0], count, where)]
    close = nearest("scores", _lists(record, count)) or nearest("ranks", _lists(record, count))
    if close:  # a misspelled name would silently rank by position
        raise UserError(f"no scores, but a list of numbers '{close}'", where=where, expected="scores or ranks")
    return None


def _lists(record: dict[str, Any], count: int) -> list[str]:
    """Return the names of further lists with one number for each completion."""
    lists = {
        name: value for name, value in record.items()
        if name not in NOT_COLUMNS and isinstance(value, list | tuple) and len(value) == count
    }  # fmt: skip
    return [name for name, value in lists.items() if all(_number(one) is not None for one in value)]


def _numbers_of(record: dict[str, Any], name: str, count: int, where: str) -> list[float]:
    values = record[name]
    listed = isinstance(values, list | tuple) and not any(isinstance(value, bool) for value in values)
    found = [_number(value) for value in values] if listed else []
    numbers = [value for value in found if value is not None]
    if len(numbers) != count or len(found) != count:
        raise UserError(f"{name} is not a list of {count} numbers", where=where, expected="one for each completion")
    return numbers
