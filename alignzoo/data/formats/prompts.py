"""Read the prompt of a record: a prompt, Alpaca's instruction, or an unfinished chat.

{"prompt": "..."} or {"prompt": [messages]}
{"instruction", "input"}                             Alpaca, as a chat; also history
{"messages": [...]} or {"conversations": [...]}      beside chosen and rejected, completions or completion
"""

from __future__ import annotations

from typing import Any

from alignzoo.core.errors import UserError, kind_of
from alignzoo.data.formats.guess import missing_part
from alignzoo.data.formats.messages import Messages, first_turn, text_or_messages
from alignzoo.data.formats.parts import Parts
from alignzoo.interfaces.rows import Row, Skipped


def prompt_of(parts: Parts) -> str | Messages | None:
    """Return the prompt as text or messages, None if the record has none."""
    if "prompt" in parts:
        return text_or_messages(parts["prompt"], parts.place("prompt"))
    if "instruction" in parts:
        return _instruction(parts)
    chat = next((part for part in ("messages", "conversations") if part in parts), None)
    return chat_of(parts, chat) if chat else None


def required_prompt(parts: Parts) -> str | Messages:
    """Return the prompt of a record.

    Raises:
        UserError: There is none. The error gives the `format:` line for a column that may be one.
    """
    prompt = prompt_of(parts)
    if prompt is None and not any(part in parts for part in ("prompt", "messages", "conversations")):
        raise missing_part(parts, "prompt")
    if prompt is None:
        raise UserError("no prompt", where=parts.where, expected="text or chat messages")
    return prompt


def chat_of(parts: Parts, part: str) -> Messages | None:
    """Return the messages of a part, None for an empty chat."""
    chat = text_or_messages(parts[part], parts.place(part))
    if isinstance(chat, str):
        raise UserError(f"{parts.column(part)} is a string", where=parts.where, expected="a list of chat messages")
    return chat


def prompt_row(id: str, parts: Parts) -> Row | Skipped:
    """Build the row of a prompt alone, for whatever draws replies."""
    prompt = prompt_of(parts)
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        return Skipped(id, "empty prompt")
    group = prompt if isinstance(prompt, str) else first_turn(prompt)
    return Row(id, prompt, (), group=" ".join(group.split()))


def string_of(parts: Parts, part: str) -> str | None:
    """Return a part that is a string or null."""
    value = parts.get(part)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{parts.column(part)} is {kind_of(value)}", where=parts.where, expected="a string")
    return value


def _instruction(parts: Parts) -> Messages:
    """Return Alpaca's prompt: the history, then a user message of instruction and input.

    A blank line separates instruction and input.
    """
    asked = "\n\n".join(filter(None, (string_of(parts, "instruction"), string_of(parts, "input"))))
    turns = [(role, text) for turn in _history(parts) for role, text in zip(("user", "assistant"), turn, strict=True)]
    return tuple({"role": role, "content": text} for role, text in (*turns, ("user", asked)))


def _history(parts: Parts) -> list[Any]:
    turns = parts.get("history") or []
    if not isinstance(turns, list | tuple) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in turns
    ):
        raise UserError(
            f"{parts.column('history')} is not a list of turns", where=parts.where,
            expected='[["instruction", "output"], ...]',
        )  # fmt: skip
    return list(turns)
