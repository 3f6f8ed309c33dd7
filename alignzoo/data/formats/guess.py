"""Suggest a reading of a record: the closest shape and the `format:` line for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.values import as_number

if TYPE_CHECKING:
    from alignzoo.data.formats.parts import Parts

SHAPES = {
    "a pair": ("prompt", "chosen", "rejected"),
    "a pair of columns": ("prompt", "completions", "preferred"),
    "a ranked list": ("prompt", "completions", "scores"),
    "completions, best first": ("prompt", "completions"),
    "a pair of chats": ("completions", "preferred"),
    "a chat with a label": ("messages", "label"),
    "a chat": ("messages",),
    "a completion with a label": ("prompt", "completion", "label"),
    "an instruction": ("instruction", "input", "completion"),
    "a prompt with its completion": ("prompt", "completion"),
    "a text": ("text",),
    "a prompt alone": ("prompt",),
}
"""Shape -> its parts. Of shapes that fit equally well the first one is suggested."""
OPTIONAL = "input"
"""Part that a shape can do without."""
WORDS = {
    "prompt": "prompt question query problem input context user source instruction history",
    "instruction": "instruction task",
    "input": "input context",
    "chosen": "chosen preferred better good win winner accepted positive response_chosen chosen_response best",
    "rejected": "rejected dispreferred worse bad lose loser negative response_rejected rejected_response worst",
    "completion": "completion response answer output reply solution target assistant summary generation",
    "completions": "completions responses answers outputs candidates replies generations",
    "scores": "scores rewards ratings",
    "ranks": "ranks ranking rank",
    "label": "label labels desirable is_good thumbs_up feedback liked",
    "preferred": "preferred winner preference better better_response_id choice chosen best",
    "messages": "messages conversation dialogue dialog chat turns conversations",
    "text": "text content document body story",
}
"""Part -> usual names of its column, the most usual first."""
SIBLINGS = re.compile(r"(?P<stem>.*?)_?(?P<last>[ab12]|[01])$", re.IGNORECASE)
STEMS = re.compile(r"response|answer|completion|output|reply|summary|generation|conversation|ref|candidate")
RATING = re.compile("score|reward|rating", re.IGNORECASE)
EXPECTED = (
    "a prompt (or instruction) with chosen and rejected, completions, completion or output; messages or conversations; "
    "or text"
)
SHOWN, READ = 20, 1_000
"""Columns that an error lists, and those among which parts are looked for."""


def unknown_shape(parts: Parts) -> UserError:
    """Return the error for columns that fit no shape, with the closest reading."""
    names = [str(name) for name in parts.record]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return UserError(
        f"the columns {', '.join(names[:SHOWN])}{more} are no row", where=parts.where, expected=EXPECTED,
        hint=closest_reading(parts.record),
    )  # fmt: skip


def closest_reading(record: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return the shape that most of the columns fit and the `format:` line for it, or "".

    Args:
        record: The columns that have no part yet.
        known: Parts that the record already has.
    """
    shape, columns, missing = closest(record, known)
    if not shape:
        return ""
    if missing:
        return f"closest reading: {shape}, without {', '.join(missing)}"
    return f"closest reading: {shape}; under data, write {_format(columns, record)}"


def closest(record: Mapping[str, Any], known: Sequence[str] = ()) -> tuple[str, dict[str, tuple[str, ...]], list[str]]:
    """Return the shape that most of the columns fit, its columns, and its missing parts.

    The shape is "" where no column fits any. The arguments are those of `closest_reading`.
    """
    record = dict(islice(record.items(), READ))
    readings = {shape: _reading(parts, record, known) for shape, parts in SHAPES.items()}
    gain = {shape: len(found) for shape, found in readings.items()}
    missing = {
        shape: [part for part in parts if part not in (*known, *readings[shape], OPTIONAL)]
        for shape, parts in SHAPES.items()
    }
    covered = {
        shape: sum(map(len, found.values())) + len(set(known) & set(SHAPES[shape])) for shape, found in readings.items()
    }
    fits = [shape for shape in SHAPES if gain[shape] and not missing[shape]]
    partly = max(SHAPES, key=lambda one: (gain[one], gain[one] / len(SHAPES[one])))
    if fits:
        shape = max(fits, key=covered.__getitem__)
        if covered[shape] >= covered[partly]:
            return shape, readings[shape], []
    return (partly, readings[partly], missing[partly]) if gain[partly] else ("", {}, [])


def missing_part(parts: Parts, part: str, what: str = "", expected: str = "") -> UserError:
    """Return the error for a missing part, with a suggestion.

    The suggestion is the nearest column name, or the `format:` line for a likely column.
    """
    names = [str(name) for name in islice(parts.record, READ)]
    close = nearest(part, names)
    return UserError(
        what or f"no column '{part}'", where=parts.where, expected=expected or f"one of {', '.join(names[:SHOWN])}",
        nearest=close, hint="" if close else _line_for(parts, part),
    )  # fmt: skip


def line_for_fields(completion: Mapping[str, Any]) -> str:
    """Return the `format:` line for the fields of an object in `completions`, or ""."""
    completion = dict(islice(completion.items(), READ))
    texts = {name: value for name, value in completion.items() if isinstance(value, str | list)}
    found = _reading(("completion",), texts, ())
    numbers = [name for name, value in completion.items() if as_number(value) is not None and RATING.search(name)]
    if found and numbers:
        found["scores"] = (min(numbers, key=len),)
    return f"under data, write {_format(found, {})}" if found else ""


def _line_for(parts: Parts, part: str) -> str:
    renamed = {p: parts.columns(p) for p in WORDS if p in parts and parts.columns(p) != (p,)}
    used = {column for p in (*WORDS, "id") for column in (parts.columns(p) if p in parts else ())}
    found = _reading(
        (part,), {name: value for name, value in islice(parts.record.items(), READ) if name not in used}, ()
    )
    return f"under data, write {_format(renamed | found, parts.record)}" if found else ""


def _format(columns: Mapping[str, Sequence[str]], record: Mapping[str, Any]) -> str:
    named = renamed(columns, record).items()
    lines = (f"{part}: {own if isinstance(own, str) else '[' + ', '.join(own) + ']'}" for part, own in named)
    return f"format: {{name: records, {', '.join(lines)}}}"


def renamed(columns: Mapping[str, Sequence[str]], record: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the fields of the format `records` for columns of other than the usual names."""
    named = {part: own for part, own in columns.items() if tuple(own) != (part,)}
    if "prompt" in named and record.get("system"):  # a system message makes a chat of it
        named = {"instruction": named.pop("prompt"), **named}
    return {part: own[0] if len(own) == 1 else list(own) for part, own in named.items()}


def _reading(parts: Sequence[str], record: Mapping[str, Any], known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns of each part that has some under its own name or a usual one."""
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part in known:
            continue
        taken = {column for columns in found.values() for column in columns}
        free = {str(name): value for name, value in record.items() if str(name) not in taken}
        if columns := _columns(part, free, found, parts):
            found[part] = columns
    return found


def _columns(
    part: str, record: Mapping[str, Any], found: Mapping[str, Sequence[str]], shape: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns that may be a part."""
    siblings = len(found.get("completions", ())) if part in ("scores", "preferred") else 0
    has_order = bool({"preferred", "scores"} & set(shape))  # columns don't stand in order, as a list may
    if part == "completions" or (part == "scores" and siblings > 1):
        several = _siblings(record, numeric=part == "scores")
        if several and (len(several) == siblings if part == "scores" else has_order):
            return several
    if part == "preferred" and siblings != 2:
        return ()
    names = {name.lower().replace(" ", "_"): name for name, value in record.items() if _may_be(part, value)}
    words = WORDS[part].split()
    usual = next((word for word in words if word in names), "") or nearest(part, names.keys() - {"level"})
    return (names[usual],) if usual else ()


def _siblings(record: Mapping[str, Any], numeric: bool) -> tuple[str, ...]:
    """Return the first columns that differ in their last letter or digit alone.

    Examples are response_a and response_b.
    """
    groups: dict[str, list[str]] = {}
    for name, value in record.items():
        match = SIBLINGS.match(name)
        if match and (as_number(value) is not None) == numeric and (numeric or STEMS.search(match["stem"].lower())):
            groups.setdefault(match["stem"], []).append(name)
    return next((tuple(names) for names in groups.values() if len(names) > 1), ())


def _may_be(part: str, value: Any) -> bool:
    """Return False for a value that a part can't have."""
    if value is None or part == "preferred":
        return True
    if part in ("completions", "scores", "ranks", "messages"):
        return isinstance(value, list | tuple) and all(
            (as_number(one) is not None) == (part in ("scores", "ranks")) for one in value
        )
    if part == "label":
        return str(value).lower() in ("true", "false", "0", "1", "0.0", "1.0")
    return not isinstance(value, bool | int | float)
