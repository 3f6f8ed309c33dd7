"""Build rows of SFT: chats, texts, and prompts with completions, without a label."""

from __future__ import annotations

from alignzoo.data.formats.messages import Messages, first_turn, text_or_messages
from alignzoo.data.formats.parts import Parts
from alignzoo.data.formats.prompts import chat_of, required_prompt, string_of
from alignzoo.interfaces.rows import Completion, Row, Skipped, is_unfinished, plain_text, reasoning


def chat_text(id: str, parts: Parts, part: str) -> Row | Skipped:
    """Build the row of a chat. The prompt ends where the assistant first speaks.

    A chat without a turn of the assistant is a prompt alone.
    """
    chat = chat_of(parts, part)
    if chat is None:
        return Skipped(id, "no messages")
    first = next((n for n, message in enumerate(chat) if message["role"] == "assistant"), None)
    if first is None:
        return Row(id, chat, (), group=" ".join(first_turn(chat).split()))
    return _chat(id, chat[:first], chat[first:])


def whole_text(id: str, parts: Parts) -> Row | Skipped:
    """Build the row of a text that is scored from its second token on."""
    text = string_of(parts, "text")
    if text is None or not text.strip():
        return Skipped(id, "empty completion")
    return Row(id, "", (Completion(text),), group=" ".join(text.split()))


def prompted_text(id: str, parts: Parts, part: str) -> Row | Skipped:
    """Build the row of a prompt and its completion, both strings or messages."""
    before, after = required_prompt(parts), text_or_messages(parts[part], parts.place(part))
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
    return _chat(id, asked, own)


def _chat(id: str, prompt: Messages, answer: Messages) -> Row | Skipped:
    last = max(n for n, message in enumerate(answer) if message["role"] == "assistant")
    if not plain_text(answer[last]).strip() and not reasoning(answer[last]):
        return Skipped(id, "empty completion")
    group = " ".join(first_turn(prompt or answer).split())
    return Row(id, prompt, (Completion(answer[last:], answer[:last]),), group)
