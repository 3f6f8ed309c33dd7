"""Suggest how to read a record whose columns fit no shape: the closest shape, and the `format:` line for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignzoo.core.errors import UserError, nearest

SHAPES = {
    "a pair": ("prompt", "chosen", "rejected"),
    "a chat": ("messages",),
    "a prompt with its completion": ("prompt", "completion"),
    "a text": ("text",),
}
WORDS = {
    "prompt": ("prompt", "question", "query", "instruction", "input", "problem", "context", "user", "source"),
    "chosen": ("chosen", "preferred", "better", "good", "win", "winner", "accepted", "positive", "response_chosen"),
    "rejected": ("rejected", "dispreferred", "worse", "bad", "lose", "loser", "negative", "response_rejected"),
    "completion": ("completion", "response", "answer", "output", "reply", "solution", "target", "assistant", "summary"),
    "messages": ("messages", "conversation", "dialogue", "dialog", "chat", "turns", "conversations"),
    "text": ("text", "content", "document", "body", "story"),
}
"""Part of a row -> usual names of its column."""


def unknown_shape(record: Mapping[str, Any], where: str) -> UserError:
    """Return the error for columns that fit no shape, with the closest reading."""
    readings = {shape: _reading(parts, record) for shape, parts in SHAPES.items()}
    shape = max(readings, key=lambda one: (len(readings[one]) / len(SHAPES[one]), len(readings[one])))
    found = readings[shape]
    hint = ""
    if len(found) == len(SHAPES[shape]):
        names = ", ".join(f"{part}: {column}" for part, column in found.items() if part != column)
        hint = f"closest reading: {shape}; under data, write format: {{name: records, {names}}}"
    elif found:
        missing = ", ".join(part for part in SHAPES[shape] if part not in found)
        hint = f"closest reading: {shape}, without {missing}"
    return UserError(
        f"the columns {', '.join(map(str, record))} are no row", where=where,
        expected="prompt, chosen and rejected; prompt, completion and label; prompt and completions; or for SFT "
        "messages, conversations, text, prompt and completion, or instruction and output",
        hint=hint,
    )  # fmt: skip


def _reading(parts: tuple[str, ...], record: Mapping[str, Any]) -> dict[str, str]:
    """Return the column of each part of a shape, as far as one has its name or a usual one."""
    columns = {str(name).lower().replace(" ", "_"): str(name) for name in record}
    found: dict[str, str] = {}
    for part in parts:
        usual = next((word for word in WORDS[part] if word in columns), "") or nearest(part, columns)
        if usual and columns[usual] not in found.values():
            found[part] = columns[usual]
    return found
