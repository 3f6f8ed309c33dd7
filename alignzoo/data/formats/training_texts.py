"""Build rows of SFT: chats, texts, prompts with completions, and Alpaca's instructions, without a label.

{"messages": [...]} or {"conversations": [{"from": "human", "value": ...}, ...]}    a chat
{"text": "..."}                                                                       a text
{"prompt", "completion"}                                                              strings or messages
{"instruction", "input", "output"}                                                    Alpaca; also system, history
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.core.errors import UserError, kind_of
from alignzoo.data.formats.messages import Messages, first_turn, template_kwargs, text_or_messages, tools_of
from alignzoo.interfaces.rows import Completion, Row, Skipped, is_unfinished, plain_text, reasoning


def chat_text(id: str, record: dict[str, Any], column: str, where: str) -> Row | Skipped:
    """Build the row of a whole chat. The prompt ends where the assistant first speaks."""
    chat = text_or_messages(record[column], f"{where}: {column}")
    if isinstance(chat, str):
        raise UserError(f"{column} is a string", where=where, expected="a list of chat messages")
    system = record.get("system")
    if chat and isinstance(system, str) and system and chat[0]["role"] != "system":  # beside ShareGPT's turns
        chat = ({"role": "system", "content": system}, *chat)
    first = next((n for n, message in enumerate(chat or ()) if message["role"] == "assistant"), None)
    if chat is None or first is None:
        return Skipped(id, "no assistant turn")
    return _chat(id, chat[:first], chat[first:], record, where)


def whole_text(id: str, record: dict[str, Any], column: str, where: str) -> Row | Skipped:
    """Build the row of a text that is scored from its second token on."""
    text = record[column]
    if text is not None and not isinstance(text, str):
        raise UserError(f"{column} is {kind_of(text)}", where=where, expected="a string")
    if text is None or not text.strip():
        return Skipped(id, "empty completion")
    return Row(id, "", (Completion(text),), group=" ".join(text.split()))


def prompted_text(id: str, record: dict[str, Any], prompt: str, completion: str, where: str) -> Row | Skipped:
    """Build the row of a prompt and its completion, both strings or messages."""
    before, after = (text_or_messages(record.get(name), f"{where}: {name}") for name in (prompt, completion))
    if before is None:
        raise UserError("no prompt", where=where, expected="text or chat messages")
    if after is None or (isinstance(after, str) and not after.strip()):
        return Skipped(id, "empty completion")
    if isinstance(before, str) and isinstance(after, str):
        return Row(id, before, (Completion(after),), group=" ".join(before.split()))
    asked: Messages = ({"role": "user", "content": before},) if isinstance(before, str) else before
    own: Messages = ({"role": "assistant", "content": after},) if isinstance(after, str) else after
    if own[0]["role"] != "assistant":
        return Skipped(id, "the completion does not begin with an assistant message")
    if is_unfinished(asked) and len(own) > 1:
        return Skipped(id, "several messages after an unfinished one")
    return _chat(id, asked, own, record, where)


def instruction_text(id: str, record: dict[str, Any], columns: Sequence[str], where: str) -> Row | Skipped:
    """Build the row of Alpaca's columns: a chat of instruction and input, a blank line between, and output."""
    instruction, more, output = (record.get(name) for name in columns)
    for name, value in zip(columns, (instruction, more, output), strict=True):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{name} is {kind_of(value)}", where=where, expected="a string")
    if not output or not output.strip():
        return Skipped(id, "empty completion")
    turns = [*_history(record.get("history"), where), ("\n\n".join(filter(None, (instruction, more))), output)]
    system = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    chat = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return _chat(id, (*system, *chat[:-1]), (chat[-1],), record, where)


def _history(value: Any, where: str) -> list[tuple[str, str]]:
    pairs = value or []
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    ):
        raise UserError("history is not a list of turns", where=where, expected='[["instruction", "output"], ...]')
    return [(question, answer) for question, answer in pairs]


def _chat(id: str, prompt: Messages, answer: Messages, record: dict[str, Any], where: str) -> Row | Skipped:
    last = max((n for n, message in enumerate(answer) if message["role"] == "assistant"))
    if not plain_text(answer[last]).strip() and not reasoning(answer[last]):
        return Skipped(id, "empty completion")
    group = " ".join(first_turn(prompt or answer).split())
    tools, kwargs = tools_of(record, where), template_kwargs(record, where)
    return Row(id, prompt, (Completion(answer[last:], answer[:last]),), group, {}, tools, kwargs)
