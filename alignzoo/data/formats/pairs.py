"""A row from a record with prompt, chosen and rejected: strings or chat messages, the prompt explicit or implicit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignzoo.core.errors import UserError, kind_of, nearest
from alignzoo.data.formats.dialogue import dialogue_row, looks_like_dialogue
from alignzoo.interfaces.rows import Completion, Message, Row, Skipped, is_unfinished, plain_text, reasoning, words

Messages = tuple[Message, ...]
Tools = tuple[Mapping[str, Any], ...]


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
    if isinstance(chosen, str) and (prompt is None or isinstance(prompt, str)):
        return _from_strings(id, prompt, chosen, str(rejected), where, record)
    return chat_row(id, prompt, [_answer(chosen), _answer(rejected)], _tools(record, where), ("chosen", "rejected"))


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
    if not isinstance(prompt, str) or not all(isinstance(answer, str) for answer in answers):
        return chat_row(id, prompt, [_answer(one) for one in answers], _tools(record, where))  # type: ignore[arg-type]
    if _repeated(answers):
        return Skipped(id, "two completions are equal")
    return Row(id, prompt, tuple(Completion(str(answer)) for answer in answers), group=" ".join(prompt.split()))


def chat_row(
    id: str, prompt: str | Messages | None, answers: Sequence[Messages], tools: Tools = (), names: Sequence[str] = ()
) -> Row | Skipped:
    """A row from chats: whole ones, or answers to a prompt, which are read as the same chats written whole.

    Each chat is scored at its last message, the assistant's. The prompt is what all have in common before it, up to
    where the assistant's turn begins; what differs after that and before the last message is the chat's own context. A
    prompt whose last message is the assistant's is unfinished, and answers of one message go on with it.
    """
    sides = names or [""] * len(answers)
    for side, answer in zip(sides, answers, strict=True):
        last = answer[-1]
        if last["role"] == "assistant" and not plain_text(last).strip() and not reasoning(last):
            return Skipped(id, "empty completion", side)
        if last["role"] != "assistant":
            return Skipped(id, "no assistant reply at the end", side)
    whole = prompt is None or all(_is_whole(answer, prompt) for answer in answers)
    if isinstance(prompt, str):
        turn = " ".join(prompt.split())
        if (
            whole
            and turn
            and not all(turn in (" ".join(words(one).split()) for one in answer[:-1]) for answer in answers)
        ):
            return Skipped(id, "the prompt is no message of the chats")
        prompt = None if whole else ({"role": "user", "content": prompt},)
    if not whole and any(answer[0]["role"] != "assistant" for answer in answers):
        return Skipped(id, "the completion does not begin with an assistant message")
    if _repeated(answers):
        return Skipped(id, "chosen equals rejected" if names else "two completions are equal")
    if not whole and prompt and is_unfinished(prompt):
        if any(len(answer) > 1 for answer in answers):
            return Skipped(id, "several messages after an unfinished one")
        return _chats(id, prompt, answers, tools)
    chats = [answer if whole else (*(prompt or ()), *answer) for answer in answers]
    shared = 0
    while shared < min(map(len, chats)) - 1 and all(chat[shared] == chats[0][shared] for chat in chats):
        shared += 1
    while shared and is_unfinished(chats[0][:shared]):
        shared -= 1
    if shared == 0:
        return Skipped(id, "no shared prompt", "the first messages differ")
    return _chats(id, chats[0][:shared], [chat[shared:] for chat in chats], tools)


def _chats(id: str, prompt: Messages, answers: Sequence[Messages], tools: Tools) -> Row:
    completions = tuple(Completion(answer[-1:], answer[:-1]) for answer in answers)
    return Row(id, prompt, completions, group=" ".join(_first_turn(prompt).split()), tools=tools)


def _is_whole(answer: Messages, prompt: str | Messages) -> bool:
    """True for a chat that begins with its prompt; beside a plain prompt, one that the assistant does not begin."""
    if isinstance(prompt, str):
        return answer[0]["role"] != "assistant"
    return len(answer) > len(prompt) and answer[: len(prompt)] == prompt


def _answer(text: str | Messages) -> Messages:
    return ({"role": "assistant", "content": text},) if isinstance(text, str) else text


def _repeated(answers: Sequence[Any]) -> bool:
    return any(answers[i] == answers[j] for i in range(len(answers)) for j in range(i))


def _first_turn(prompt: Messages) -> str:
    return next((words(message) for message in prompt if message["role"] == "user"), words(prompt[0]))


def column_of(record: dict[str, Any], name: str, where: str) -> Any:
    """The value in a column. Raises UserError with the nearest name when there is none."""
    if name not in record:
        found = f"one of {', '.join(record)}" if record else "a record with columns"
        raise UserError(f"no column '{name}'", where=where, expected=found, nearest=nearest(name, record))
    return record[name]


def _from_strings(
    id: str, prompt: str | None, chosen: str, rejected: str, where: str, record: dict[str, Any]
) -> Row | Skipped:
    if prompt is None:
        if looks_like_dialogue(chosen) and looks_like_dialogue(rejected):
            return dialogue_row(id, chosen, rejected)
        raise UserError(
            "no prompt: there is no column 'prompt', and the completions are not dialogues that begin with it",
            where=where, nearest=nearest("prompt", record),
            expected="a prompt column, chat messages, or HH dialogues ('\\n\\nHuman: ... \\n\\nAssistant: ...')",
        )  # fmt: skip
    if not chosen.strip() or not rejected.strip():
        return Skipped(id, "empty completion", "rejected" if chosen.strip() else "chosen")
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(prompt.split()))


def _value(value: Any, where: str) -> str | Messages | None:
    """A string, a tuple of messages, or None for null and an empty chat."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise UserError(f"it holds {kind_of(value)}", where=where, expected="a string or a list of chat messages")
    return tuple(_message(message, where) for message in value) or None


def _message(message: Any, where: str) -> Message:
    """A message without its nulls, as transformers hands it to a template."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError("not a chat message", where=where, expected='{"role": ..., "content": ...}')
    found = {key: value for key, value in message.items() if value is not None}
    content, calls = found.get("content"), found.get("tool_calls") or []
    if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
        raise UserError("tool_calls is not a list of calls", where=where, expected='[{"type": "function", ...}]')
    if isinstance(content, list | tuple) and not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        raise UserError("a part of a message that is no text", where=where, expected='{"type": "text", "text": ...}')
    if not isinstance(content, str | list | tuple) and (content is not None or not (calls or reasoning(found))):
        raise UserError("a chat message without text", where=where, expected='{"role": ..., "content": "text"}')
    return found


def _tools(record: dict[str, Any], where: str) -> Tools:
    """The column `tools`: JSON schemas of functions, as a list or written as JSON."""
    tools = record.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError:
            raise UserError("tools is not JSON", where=where, expected="a list of JSON schemas") from None
    tools = tools or ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError("tools is not a list of functions", where=where, expected="a list of JSON schemas")
    return tuple(tools)
