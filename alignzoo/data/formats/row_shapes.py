"""Detect the shape of a record and build its row.

A prompt in any spelling can have any kind of completions:

    chosen, rejected                          a pair; see `alignzoo.data.formats.pairs`. Lists of several, as in
                                              RewardBench 2, are a ranked list of two scores, 1 and 0
    completions, and scores or ranks          ranked, best first without either; of two, `preferred` is the better one
    completion (or output), and label         one completion, desirable or not; without a label data of SFT
    messages or conversations, and label      the last turn, desirable or not; without a label data of SFT
    text                                      data of SFT
    nothing                                   a prompt alone

Other columns are kept with the row. Numbers are columns that an objective can read, true and false among them as 1 and
0: `chosen_score` and `rejected_score` (or `score_chosen`, ...) are a column `score` of the two completions, and so is
every list of one number for each of `completions`. Numbers and labels may be text, as in CSV. A row is a tie if its
column `tie` is 1, if `preferred` is `tie`, or if all scores of a list are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.guess import unknown_shape
from alignzoo.data.formats.messages import template_kwargs, tools_of
from alignzoo.data.formats.pairs import chat_row, completions_row, preference_row
from alignzoo.data.formats.parts import LISTS, Names, Parts
from alignzoo.data.formats.prompts import chat_of, prompt_row, string_of
from alignzoo.data.formats.training_texts import chat_text, prompted_text, whole_text
from alignzoo.data.formats.values import as_number, numbers, plain_values
from alignzoo.interfaces.rows import TIE, Row, Skipped

ANSWERS = ("chosen", "rejected", "completions", "completion", "messages", "conversations", "output", "text")
"""Parts that hold what is scored. The first one that is there decides the shape."""
SIDES = ("chosen", "rejected")
FOR_CHATS = ("system", "tools", "chat_template_kwargs")
LABELS = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}
"""Lower-case text of labels in JSON and spreadsheets -> value."""


def record_row(id: str, record: Mapping[str, Any], names: Names, where: str) -> Row | Skipped:
    """Build a row from one record.

    Args:
        id: Id of the row.
        record: The record.
        names: Names of its columns.
        where: The place of the record, for errors.

    Raises:
        UserError: A column is missing or has a value of the wrong type; the error names `where`.
    """
    parts = Parts(record, names, where)
    answer = _answer(parts)
    if answer in SIDES:
        row = _sides(id, parts) if any(map(_is_several, map(parts.get, SIDES))) else preference_row(id, parts)
    elif answer == "completions":
        row = _ranked(id, parts)
    elif answer == "text":
        row = whole_text(id, parts)
    elif answer:
        row = _single(id, parts, answer)
    elif "prompt" in parts or "instruction" in parts:
        row = prompt_row(id, parts)
    elif record:
        raise unknown_shape(parts)
    else:
        raise UserError("no columns", where=where, expected="a record with columns")
    return _with_others(_with_inputs(row, parts), parts)


def _is_several(value: Any) -> bool:
    """Return True for a list of texts or of chats; a chat is a list of messages."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str | list | tuple) for one in value)


def _sides(id: str, parts: Parts) -> Row | Skipped:
    """Build the row of a list of chosen and a list of rejected completions."""
    texts: list[Any] = []
    places: list[str] = []
    counts = []
    for side in SIDES:
        given = parts[side]
        own = given if _is_several(given) else [given]
        texts += own
        places += [f"{parts.place(side)} {n}" for n in range(1, len(own) + 1)]
        counts.append(len(own))
    row = completions_row(id, parts, texts, places)
    if isinstance(row, Skipped):
        return row
    scores = [1.0] * counts[0] + [0.0] * counts[1]
    scored = [replace(one, columns={"score": s}) for one, s in zip(row.completions, scores, strict=True)]
    return replace(row, completions=tuple(scored))


def _answer(parts: Parts) -> str:
    """Return the part that decides the shape; "" for a prompt alone.

    Parts that are not null take precedence.
    """
    there = [part for part in ANSWERS if part in parts and (part != "output" or "instruction" in parts)]
    return next((part for part in there if parts.has_value(part)), there[0] if there else "")


def _with_inputs(row: Row | Skipped, parts: Parts) -> Row | Skipped:
    """Return a chat with its system message, tools and variables of the template."""
    if isinstance(row, Skipped) or not any(part in parts for part in FOR_CHATS):
        return row
    if isinstance(row.prompt, str):
        unread = [part for part in FOR_CHATS if parts.has_value(part) and parts.get(part)]
        if unread and row.prompt:
            raise UserError(
                f"{' and '.join(map(parts.column, unread))} can't be used: the prompt is plain text, and no chat",
                where=parts.where, expected="chat messages",
                hint=f"format: {{name: records, instruction: {parts.column('prompt')}}} reads the prompt as a user's "
                f"message; {{name: records, {', '.join(f'{part}: null' for part in unread)}}} leaves these columns out",
            )  # fmt: skip
        return row
    system = string_of(parts, "system")
    if system and not (row.prompt and row.prompt[0]["role"] == "system"):
        row = replace(row, prompt=({"role": "system", "content": system}, *row.prompt))
    return replace(row, tools=tools_of(parts), template_kwargs=template_kwargs(parts))


def _with_others(row: Row | Skipped, parts: Parts) -> Row | Skipped:
    """Return the row with the columns that have not been used.

    Numbers of a side belong to its completion.
    """
    others = {} if isinstance(row, Skipped) else parts.others
    if isinstance(row, Skipped) or not others:
        return row
    own: list[dict[str, float]] = [dict(one.columns) for one in row.completions]
    rest: dict[str, float] = {}
    sides = ((*parts.columns("chosen"), "chosen"), (*parts.columns("rejected"), "rejected"))
    paired = "chosen" in parts and len(own) == 2
    for key, value in numbers(others).items():
        of = [(side, _of(key, word)) for side, words in enumerate(sides) for word in words if paired and _of(key, word)]
        if of:
            own[of[0][0]].setdefault(of[0][1], value)
        else:
            rest[key] = value
    completions = tuple(replace(one, columns=mine) for one, mine in zip(row.completions, own, strict=True))
    return replace(row, columns={**rest, **row.columns}, completions=completions, extra=plain_values(others))


def _of(key: str, side: str) -> str:
    """Return `score` for `chosen_score` and `score_chosen`; "" for a key without this side."""
    if key.startswith(f"{side}_"):
        return key.removeprefix(f"{side}_")
    return key.removesuffix(f"_{side}") if key.endswith(f"_{side}") else ""


def _single(id: str, parts: Parts, answer: str) -> Row | Skipped:
    """Build the row of one completion: with a label unpaired, without one data of SFT."""
    chat = answer in ("messages", "conversations")
    if answer == "output":
        string_of(parts, answer)
    if "label" not in parts:
        close = "" if "label" in parts.unread else nearest("label", (one for one in parts.record if one != "level"))
        if close and as_label(parts.record[close]) is not None:  # misspelled, it would train on undesirable ones
            raise UserError(
                "a completion has no label", where=parts.where, expected="label: true (desirable) or false",
                nearest=close, hint=f"format: {{name: records, label: null}} reads it without, and keeps '{close}'",
            )  # fmt: skip
        return chat_text(id, parts, answer) if chat else prompted_text(id, parts, answer)
    label = as_label(parts["label"])
    if label is None:
        raise UserError(
            f"{parts.column('label')} is {parts['label']!r}", where=parts.where,
            expected="true (desirable) or false", hint="format: {name: records, label: null} leaves the column out",
        )  # fmt: skip
    if chat:
        whole = chat_of(parts, answer)
        row = chat_row(id, None, [whole]) if whole else Skipped(id, "no messages")
    else:
        row = completions_row(id, parts, [parts[answer]], [parts.place(answer)])
    if isinstance(row, Skipped):
        return row
    return replace(row, completions=(replace(row.completions[0], columns={"desirable": label}),))


def as_label(value: Any) -> float | None:
    """Return a label as 1 or 0; None for any other value."""
    return LABELS.get(str(value).lower().removesuffix(".0"))


def _ranked(id: str, parts: Parts) -> Row | Skipped:
    texts, columns = parts["completions"], parts.columns("completions")
    if not isinstance(texts, list | tuple) or len(texts) < 2:
        raise UserError(
            f"{parts.column('completions')} is not a list of two or more", where=parts.where,
            expected="a list of completions",
        )  # fmt: skip
    several = len(columns) == len(texts)
    places = [f"{parts.where}: {columns[n] if several else f'completion {n + 1}'}" for n in range(len(texts))]
    order, scores, tied = list(range(len(texts))), None, False
    if "preferred" in parts:
        best = _preferred(parts["preferred"], columns, parts)
        tied = best is None and str(parts["preferred"]).lower().startswith("tie")
        if best is None and not tied:
            return Skipped(id, "no preference", str(parts["preferred"])[:40])
        order = order[::-1] if best == 1 else order
    else:
        scores = _scores(parts, len(texts))
    row = completions_row(id, parts, texts, places)
    if isinstance(row, Skipped):
        return row
    lists = _lists(parts.others, len(texts))
    own = parts.numbers_of_completions or [{} for _ in texts]
    own = [{**{name: values[n] for name, values in lists.items()}, **one} for n, one in enumerate(own)]
    found = [replace(one, columns=mine) for one, mine in zip(row.completions, own, strict=True)]
    if scores is not None:
        found = [replace(one, columns={**one.columns, "score": s}) for one, s in zip(found, scores, strict=True)]
        order = sorted(order, key=lambda n: -scores[n])  # stable: ties keep their order
    row = replace(row, completions=tuple(found[n] for n in order))
    return replace(row, columns={TIE: 1.0}) if tied or row.scores_are_equal else row


def _preferred(value: Any, columns: Sequence[str], parts: Parts) -> int | None:
    """Return the index of the column that `preferred` names; None for others, such as a tie.

    `preferred` is the column's name, or its part that the other one lacks: `a` of `response_a` and `response_b`.
    """
    if len(columns) != 2:
        raise UserError(
            f"{parts.column('preferred')} chooses between two columns", where=parts.where,
            expected="format: {name: records, completions: [COLUMN, COLUMN], preferred: COLUMN}",
        )  # fmt: skip
    start = next((n for n, (a, b) in enumerate(zip(*columns, strict=False)) if a != b), min(map(len, columns)))
    text = str(value).lower()
    for n, column in enumerate(columns):
        if text in (column.lower(), column[start:].lower()) or text.endswith(f"_{column[start:].lower()}"):
            return n
    return None


def _scores(parts: Parts, count: int) -> list[float] | None:
    """Return one number for each completion; larger is better.

    None if the completions are listed best first.
    """
    given = [part for part in ("scores", "ranks") if parts.has_value(part)]
    if len(given) > 1:
        raise UserError("the record has both scores and ranks", where=parts.where, expected="one of them")
    if given:
        sign = 1 if given == ["scores"] else -1
        return [sign * value for value in _numbers_of(parts, given[0], count)]
    lists = list(_lists(parts.record, count))
    close = next((one for part in LISTS[1:] if part not in parts.unread and (one := nearest(part, lists))), "")
    if close:  # a misspelled name would silently rank by position
        raise UserError(
            f"no scores, but a list of numbers '{close}'", where=parts.where, expected="scores or ranks",
            hint=f"format: {{name: records, scores: {close}}} reads it; scores: null, ranks: null leaves it out",
        )  # fmt: skip
    return None


def _lists(record: Mapping[str, Any], count: int) -> dict[str, list[float]]:
    """Return the lists of one number for each completion, by name."""
    lists = {name: value for name, value in record.items() if isinstance(value, list | tuple) and len(value) == count}
    found = {str(name): [as_number(one) for one in value] for name, value in lists.items()}
    return {
        name: known
        for name, values in found.items()
        if len(known := [one for one in values if one is not None]) == count
    }


def _numbers_of(parts: Parts, part: str, count: int) -> list[float]:
    values, name = parts[part], parts.column(part)
    listed = isinstance(values, list | tuple) and not any(isinstance(value, bool) for value in values)
    found = [as_number(value) for value in values] if listed else []
    numbers = [value for value in found if value is not None]
    if len(numbers) != count or len(found) != count:
        raise UserError(
            f"{name} is not a list of {count} numbers", where=parts.where, expected="one for each completion"
        )
    return numbers
