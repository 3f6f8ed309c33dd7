"""A preference row as read from a source, before any tokenizer has seen it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""A chat message as the chat template reads it: `role`, `content`, and any of `tool_calls`, `name`, `tool_call_id`,
`reasoning_content`. Keys whose value is null are left out."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's thoughts; transformers hands each of them to a template as the first."""
Text = str | tuple[Message, ...]
"""Plain text, or chat messages that go through the tokenizer's chat template."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. Only `text` is scored; `context` holds turns that belong to this branch alone and come before it.

    `context` is empty except in rows whose dialogues differ before the last turn.
    """

    text: Text
    context: Text = ""
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
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the chat template lists."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that can't be used, and why: counted by `reason` and listed in the run folder."""

    id: str
    reason: str
    detail: str = ""


def words(message: Message) -> str:
    """The text of a message's content: "" where there is none, the text parts joined where it has parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def reasoning(message: Message) -> str:
    """The thoughts of a message that stand in a field of their own, "" without."""
    return next((str(message[key]) for key in REASONING if message.get(key)), "")


def is_unfinished(messages: Sequence[Message]) -> bool:
    """True where the last message is the assistant's: an answer goes on with it."""
    return messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")


def plain_text(text: Text | Message) -> str:
    """A text, a message or messages for people and judges: tool calls as JSON, each on a line of its own."""
    if isinstance(text, str):
        return text
    if isinstance(text, Mapping):
        calls = (json.dumps(call, ensure_ascii=False) for call in text.get("tool_calls") or ())
        return "\n".join(filter(None, (words(text), *calls)))
    return "\n".join(map(plain_text, text))


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a text, a list of messages or anything else that JSON holds, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)
