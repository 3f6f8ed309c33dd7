"""A row from a record with prompt, chosen and rejected: strings or chat messages, the prompt explicit or implicit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from alignzoo.data.dialogue import dialogue_row, looks_like_dialogue
from alignzoo.data.files import kind_of
from alignzoo.data.rows import Completion, Message, Row, Skipped
from alignzoo.errors import UserError, nearest

Messages = tuple[Message, ...]


class Columns(NamedTuple):
    """What a table calls the three. Without the column `prompt` the prompt is implicit; one of another name must be."""

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"


def preference_row(id: str, record: dict[str, Any], columns: Columns, where: str) -> Row | Skipped:
    """A row from one record.

    Raises UserError (with `where`) for a missing column or a value of the wrong type.
    """
    required = (columns.chosen, columns.rejected) + ((columns.prompt,) if columns.prompt != "prompt" else ())
    for name in required:
        column_of(record, name, where)
    chosen, rejected = (_value(record[name], f"{where}: {name}") for name in columns[1:])
    if chosen is None or rejected is None:
        return Skipped(id, "empty completion", columns.chosen if chosen is None else columns.rejected)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UserError("chosen and rejected are of different kinds", where=where, expected="two strings, or two chats")
    prompt = _value(record.get(columns.prompt), f"{where}: {columns.prompt}")
    if isinstance(chosen, str):
        return _from_strings(id, prompt, chosen, str(rejected), where, record)
    return _from_chats(id, prompt, chosen, rejected)  # type: ignore[arg-type]


def completions_row(
    id: str, record: dict[str, Any], prompt_column: str, texts: Sequence[Any], where: str
) -> Row | Skipped:
    """A row from a prompt and any number of completions, in their order."""
    prompt = _value(column_of(record, prompt_column, where), f"{where}: {prompt_column}")
    answers = [_value(text, f"{where}: completion {i}") for i, text in enumerate(texts, 1)]
    if prompt is None:
        raise UserError("no prompt", where=where, expected="text or chat messages")
    if any(answer is None or (isinstance(answer, str) and not answer.strip()) for answer in answers):
        return Skipped(id, "empty completion")
    if isinstance(prompt, str) and not all(isinstance(answer, str) for answer in answers):
        prompt = ({"role": "user", "content": prompt},)
    if not isinstance(prompt, str):
        answers = [({"role": "assistant", "content": one},) if isinstance(one, str) else one for one in answers]
        if any(len(one) != 1 or one[0]["role"] != "assistant" for one in answers):  # type: ignore[arg-type,index]
            return Skipped(id, "completion is not one assistant message")
    if any(answers[i] == answers[j] for i in range(len(answers)) for j in range(i)):
        return Skipped(id, "two completions are equal")
    first = prompt if isinstance(prompt, str) else _first_turn(prompt)
    return Row(id, prompt, tuple(Completion(answer) for answer in answers), group=" ".join(first.split()))  # type: ignore[arg-type]


def _first_turn(prompt: Messages) -> str:
    return next((message["content"] for message in prompt if message["role"] == "user"), prompt[0]["content"])


def column_of(record: dict[str, Any], name: str, where: str) -> Any:
    """The value in a column. Raises UserError with the nearest name when there is none."""
    if name not in record:
        found = f"one of {', '.join(record)}" if record else "a record with columns"
        raise UserError(f"no column '{name}'", where=where, expected=found, nearest=nearest(name, record))
    return record[name]


def _from_strings(
    id: str, prompt: str | Messages | None, chosen: str, rejected: str, where: str, record: dict[str, Any]
) -> Row | Skipped:
    if prompt is None:
        if looks_like_dialogue(chosen) and looks_like_dialogue(rejected):
            return dialogue_row(id, chosen, rejected)
        raise UserError(
            "no prompt: there is no column 'prompt', and the completions are not dialogues that begin with it",
            where=where, nearest=nearest("prompt", record),
            expected="a prompt column, chat messages, or HH dialogues ('\\n\\nHuman: ... \\n\\nAssistant: ...')",
        )  # fmt: skip
    if not isinstance(prompt, str):  # a chat prompt and plain answers: the answers are the assistant's turns
        answers = (({"role": "assistant", "content": text},) for text in (chosen, rejected))
        return _checked(id, prompt, *answers)
    if not chosen.strip() or not rejected.strip():
        return Skipped(id, "empty completion", "rejected" if chosen.strip() else "chosen")
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(prompt.split()))


def _from_chats(id: str, prompt: str | Messages | None, chosen: Messages, rejected: Messages) -> Row | Skipped:
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
    group = " ".join(_first_turn(prompt).split())
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=group)


def _value(value: Any, where: str) -> str | Messages | None:
    """A string, a tuple of messages, or None for null and an empty chat."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise UserError(f"it holds {kind_of(value)}", where=where, expected="a string or a list of chat messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UserError("not a chat message", where=where, expected='{"role": ..., "content": ...}')
        if not isinstance(message.get("content"), str):
            raise UserError("a chat message without text", where=where, expected='{"role": ..., "content": "text"}')
    return tuple({"role": message["role"], "content": message["content"]} for message in value) or None
