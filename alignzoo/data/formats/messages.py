"""Read chat messages, tools and template variables from the parts of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignzoo.core.door import BadFile, parse_json
from alignzoo.core.errors import UserError, kind_of, nearest
from alignzoo.data.formats.parts import Parts
from alignzoo.interfaces.rows import Message, check_template_kwargs, reasoning, words

Messages = tuple[Message, ...]
Tools = tuple[Mapping[str, Any], ...]
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_response": "tool", "function_call": "assistant",
}  # fmt: skip
"""`from` of ShareGPT's turns -> role."""


def first_turn(prompt: Messages) -> str:
    """Return the text of the first user message, or of the first message."""
    return next((words(message) for message in prompt if message["role"] == "user"), words(prompt[0]))


def text_or_messages(value: Any, where: str) -> str | Messages | None:
    """Return a string, a tuple of messages, or None for null and an empty chat."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and ("role" in value or "from" in value):  # one message, as LLaMA-Factory has it
        value = [value]
    if not isinstance(value, list | tuple):
        raise UserError(f"the value is {kind_of(value)}", where=where, expected="a string or a list of chat messages")
    return tuple(_message(message, where) for message in value) or None


def _message(message: Any, where: str) -> Message:
    """Validate a message, in ShareGPT's spelling too, and drop its null fields.

    transformers drops null fields as well.
    """
    if isinstance(message, dict) and "role" not in message and "from" in message:
        message = _share_gpt(message, where)
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError("not a chat message", where=where, expected='{"role": ..., "content": ...}')
    found = {key: value for key, value in message.items() if value is not None}
    content, calls = found.get("content"), found.get("tool_calls") or []
    if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
        raise UserError("tool_calls is not a list of calls", where=where, expected='[{"type": "function", ...}]')
    if isinstance(content, list | tuple) and not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        raise UserError("a message part is not text", where=where, expected='{"type": "text", "text": ...}')
    if not isinstance(content, str | list | tuple) and (content is not None or not (calls or reasoning(found))):
        raise UserError("a chat message has no text", where=where, expected='{"role": ..., "content": "text"}')
    return found


def _share_gpt(turn: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a turn of `from` and `value` as a message."""
    speaker, value = turn["from"], turn.get("value")
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise UserError(
            f"a turn is from {speaker!r}", where=where, expected=f"one of {', '.join(ROLES)}",
            nearest=nearest(str(speaker), ROLES),
        )  # fmt: skip
    if speaker != "function_call":
        return {"role": role, "content": value}
    try:
        call = parse_json(value, where) if isinstance(value, str) else value
    except BadFile:
        call = None
    calls = call if isinstance(call, list) else [call]
    if not all(isinstance(one, dict) and "name" in one for one in calls):
        raise UserError("a function_call is not JSON of a call", where=where, expected='{"name": ..., "arguments": {}}')
    return {"role": role, "tool_calls": [{"type": "function", "function": one} for one in calls]}


def template_kwargs(parts: Parts) -> dict[str, Any]:
    """Return `chat_template_kwargs`, the variables of the chat template.

    The column holds an object or JSON text.
    """
    value, where = parts.get("chat_template_kwargs"), parts.where
    try:
        found = parse_json(value, where) if isinstance(value, str) and value.strip() else value or {}
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return check_template_kwargs({name: one for name, one in found.items() if one is not None})  # Arrow's absence
    except ValueError as error:
        raise UserError(
            f"chat_template_kwargs can't be used: {error}",
            where=where,
            expected='an object, {"enable_thinking": false}',
        ) from None


def tools_of(parts: Parts) -> Tools | None:
    """Return `tools`, the JSON schemas of functions.

    The column holds a list or JSON text. The result is None if the record has no tools of its own.
    """
    tools = parts.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = parse_json(tools, parts.where)
        except BadFile:
            raise UserError("tools is not JSON", where=parts.where, expected="a list of JSON schemas") from None
    if tools is None or (isinstance(tools, str) and not tools.strip()):
        return None
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError("tools is not a list of functions", where=parts.where, expected="a list of JSON schemas")
    return tuple(tools)
