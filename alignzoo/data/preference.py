"""A row from a record with prompt, chosen and rejected: strings or chat messages, the prompt explicit or implicit."""

from __future__ import annotations

from typing import Any

from alignzoo.data.dialogue import dialogue_row, looks_like_dialogue
from alignzoo.data.rows import Completion, Message, Row, Skipped
from alignzoo.errors import UserError, nearest

Messages = tuple[Message, ...]


def preference_row(id: str, record: dict[str, Any], columns: tuple[str, str, str], where: str) -> Row | Skipped:
    """A row from one record. `columns` name prompt, chosen and rejected; without a prompt column it is implicit.

    Raises UserError (with `where`) for a missing column or a value of the wrong type.
    """
    prompt_name, chosen_name, rejected_name = columns
    for name in (chosen_name, rejected_name):
        if name not in record:
            raise UserError(
                f"no field '{name}'", where=where, nearest=nearest(name, record),
                expected=f"prompt, chosen and rejected (found: {', '.join(record) or 'nothing'})",
            )  # fmt: skip
    chosen, rejected = (_value(record[name], f"{where}: {name}") for name in (chosen_name, rejected_name))
    if chosen is None or rejected is None:
        return Skipped(id, "empty completion", chosen_name if chosen is None else rejected_name)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UserError("chosen and rejected are of different kinds", where=where, expected="two strings, or two chats")
    prompt = _value(record[prompt_name], f"{where}: {prompt_name}") if prompt_name in record else None
    if isinstance(chosen, str):
        return _from_strings(id, prompt, chosen, str(rejected), where)
    return _from_chats(id, prompt, chosen, rejected, where)  # type: ignore[arg-type]


def _from_strings(id: str, prompt: str | Messages | None, chosen: str, rejected: str, where: str) -> Row | Skipped:
    if prompt is None:
        if looks_like_dialogue(chosen) and looks_like_dialogue(rejected):
            return dialogue_row(id, chosen, rejected)
        raise UserError("no field 'prompt', and the completions are not dialogues that contain it", where=where,
                        expected="a prompt, chat messages, or HH dialogues ('\\n\\nHuman: ... \\n\\nAssistant: ...')")  # fmt: skip
    if not isinstance(prompt, str):  # a chat prompt and plain answers: the answers are the assistant's turns
        return _checked(id, prompt, ({"role": "assistant", "content": chosen},), ({"role": "assistant", "content": rejected},))
    if not chosen.strip() or not rejected.strip():
        return Skipped(id, "empty completion", "rejected" if chosen.strip() else "chosen")
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(prompt.split()))


def _from_chats(id: str, prompt: str | Messages | None, chosen: Messages, rejected: Messages, where: str) -> Row | Skipped:
    if isinstance(prompt, tuple) and chosen[: len(prompt)] != prompt:
        return _checked(id, prompt, chosen, rejected)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0 and isinstance(prompt, str):
        return _checked(id, ({"role": "user", "content": prompt},), chosen, rejected)
    if shared == 0:
        return Skipped(id, "no shared prompt", "the first messages differ")
    return _checked(id, chosen[:shared], chosen[shared:], rejected[shared:])


def _checked(id: str, prompt: Messages, chosen: Messages, rejected: Messages) -> Row | Skipped:
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or not answer[-1]["content"].strip():
            return Skipped(id, "empty completion", name)
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            return Skipped(id, "completion is not one assistant message", name)
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    first = next((message["content"] for message in prompt if message["role"] == "user"), prompt[0]["content"])
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(first.split()))


def _value(value: Any, where: str) -> str | Messages | None:
    """A string, a tuple of messages, or None for null and an empty chat."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise UserError(f"a {type(value).__name__}", where=where, expected="a string or a list of chat messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UserError("not a chat message", where=where, expected='{"role": ..., "content": ...}')
        if not isinstance(message.get("content"), str):
            raise UserError("a chat message without text", where=where, expected='{"role": ..., "content": "text"}')
    return tuple({"role": message["role"], "content": message["content"]} for message in value) or None
