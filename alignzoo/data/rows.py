"""A preference row as read from a source, before any tokenizer has seen it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Message = Mapping[str, str]
"""{"role": "user" | "assistant" | "system", "content": "..."}"""
Text = str | tuple[Message, ...]
"""Plain text, or chat messages that go through the tokenizer's chat template."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. Only `text` is scored; `context` holds turns that belong to this branch alone and come before it.

    `context` is empty except in the rare HH rows whose two dialogues differ before the last turn.
    """

    text: Text
    context: str = ""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers of its own: `score`; `desirable` (1 or 0) of unpaired data."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and its completions, the best one first: two are a pair, more a ranked list, one is unpaired data."""

    id: str
    """Unique in its source and stable: `file.jsonl.gz:17`, or the row's own id."""
    prompt: Text
    completions: tuple[Completion, ...]
    group: str
    """Rows with one group never land on both sides of a split: the first human turn, or the whole prompt."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers that came with the row (a margin, a weight)."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that can't be used, and why: counted by `reason` and listed in the run folder."""

    id: str
    reason: str
    detail: str = ""
