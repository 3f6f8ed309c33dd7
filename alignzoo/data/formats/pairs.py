"""Build rows from prompts and completions, as strings or as chat messages.

The prompt is explicit or implicit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from alignzoo.core.errors import UserError
from alignzoo.data.formats.dialogue import dialogue_row, looks_like_dialogue
from alignzoo.data.formats.guess import missing_part
from alignzoo.data.formats.messages import Messages, first_turn, text_or_messages
from alignzoo.data.formats.parts import Parts
from alignzoo.data.formats.prompts import prompt_of, required_prompt
from alignzoo.interfaces.rows import Completion, Row, Skipped, is_unfinished, plain_text, reasoning, words


def preference_row(id: str, parts: Parts) -> Row | Skipped:
    """Build a row from a record with a chosen and a rejected completion.

    Raises:
        UserError: A column is missing or has a value of the wrong type.
    """
    chosen, rejected = (text_or_messages(_side(parts, part), parts.place(part)) for part in ("chosen", "rejected"))
    if chosen is None or rejected is None:
        return Skipped(id, "empty completion", parts.column("chosen" if chosen is None else "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UserError(
            "chosen and rejected have different types", where=parts.where, expected="two strings, or two chats"
        )
    whole = not isinstance(chosen, str) and chosen[0]["role"] != "assistant"
    prompt = None if whole and "prompt" not in parts and "instruction" not in parts else prompt_of(parts)
    if isinstance(chosen, str) and (prompt is None or isinstance(prompt, str)):
        return _from_strings(id, prompt, chosen, str(rejected), parts)
    return chat_row(id, prompt, [_answer(chosen), _answer(rejected)], ("chosen", "rejected"))


def _side(parts: Parts, part: str) -> Any:
    if part in parts:
        return parts[part]
    raise missing_part(parts, part)


def completions_row(id: str, parts: Parts, texts: Sequence[Any], places: Sequence[str]) -> Row | Skipped:
    """Build a row from a prompt and any number of completions, in their order.

    Whole chats need no prompt.

    Raises:
        UserError: A column is missing or has a value of the wrong type.
    """
    answers = [text_or_messages(text, place) for text, place in zip(texts, places, strict=True)]
    if any(answer is None or (isinstance(answer, str) and not answer.strip()) for answer in answers):
        return Skipped(id, "empty completion")
    whole = all(not isinstance(answer, str) and answer[0]["role"] != "assistant" for answer in answers)  # type: ignore[index]
    prompt = prompt_of(parts) if whole else required_prompt(parts)
    if not isinstance(prompt, str) or not all(isinstance(answer, str) for answer in answers):
        return chat_row(id, prompt, [_answer(one) for one in answers])  # type: ignore[arg-type]
    if _repeated(answers):
        return Skipped(id, "two completions are equal")
    return Row(id, prompt, tuple(Completion(str(answer)) for answer in answers), group=" ".join(prompt.split()))


def chat_row(
    id: str, prompt: str | Messages | None, answers: Sequence[Messages], names: Sequence[str] = ()
) -> Row | Skipped:
    """Build a row from whole chats, or from a prompt and its answers.

    A prompt and its answers are joined to whole chats. The last message of each chat is scored and must be the
    assistant's. The prompt is the common beginning of all chats, up to the start of an assistant turn. Messages between
    the prompt and the last message are the chat's own context. If the prompt ends with an assistant message, answers of
    one message continue that message.

    Args:
        id: Id of the row.
        prompt: Messages or text of the prompt. None if the chats are whole.
        answers: Messages of each completion, or whole chats.
        names: Names of the completions for the reasons of skipped rows.
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
            return Skipped(id, "the prompt is not a message of the chats")
        prompt = None if whole else ({"role": "user", "content": prompt},)
    if not whole and any(answer[0]["role"] != "assistant" for answer in answers):
        return Skipped(id, "the completion does not begin with an assistant message")
    if _repeated(answers):
        return Skipped(id, "chosen equals rejected" if names else "two completions are equal")
    if not whole and prompt and is_unfinished(prompt):
        if any(len(answer) > 1 for answer in answers):
            return Skipped(id, "several messages after an unfinished one")
        return _chats(id, prompt, answers)
    chats = [answer if whole else (*(prompt or ()), *answer) for answer in answers]
    shared = 0
    while shared < min(map(len, chats)) - 1 and all(chat[shared] == chats[0][shared] for chat in chats):
        shared += 1
    while shared and is_unfinished(chats[0][:shared]):
        shared -= 1
    if shared == 0:
        return Skipped(id, "no shared prompt", "the first messages differ")
    return _chats(id, chats[0][:shared], [chat[shared:] for chat in chats])


def _chats(id: str, prompt: Messages, answers: Sequence[Messages]) -> Row:
    completions = tuple(Completion(answer[-1:], answer[:-1]) for answer in answers)
    return Row(id, prompt, completions, group=" ".join(first_turn(prompt).split()))


def _is_whole(answer: Messages, prompt: str | Messages) -> bool:
    """Return True for a chat that includes its prompt.

    For a plain-text prompt, the first role of the chat decides.
    """
    if isinstance(prompt, str):
        return answer[0]["role"] != "assistant"
    return len(answer) > len(prompt) and answer[: len(prompt)] == prompt


def _answer(text: str | Messages) -> Messages:
    return ({"role": "assistant", "content": text},) if isinstance(text, str) else text


def _repeated(answers: Sequence[Any]) -> bool:
    """Return True if two answers are equal.

    Pairs are not compared, as a list may have many thousand.
    """
    return len({json.dumps(answer, sort_keys=True, default=str) for answer in answers}) < len(answers)


def _from_strings(id: str, prompt: str | None, chosen: str, rejected: str, parts: Parts) -> Row | Skipped:
    if prompt is None:
        if looks_like_dialogue(chosen) and looks_like_dialogue(rejected):
            return dialogue_row(id, chosen, rejected)
        raise missing_part(
            parts, "prompt", "no prompt: there is no column 'prompt', and the completions are not HH dialogues",
            f"a prompt among {', '.join(map(str, parts.record))}, chat messages, "
            "or HH dialogues ('\\n\\nHuman: ... \\n\\nAssistant: ...')",
        )  # fmt: skip
    if not chosen.strip() or not rejected.strip():
        return Skipped(id, "empty completion", "rejected" if chosen.strip() else "chosen")
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(prompt.split()))
