"""Chat messages to text, through the tokenizer's own chat template. Plain text is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.data.rows import Row, Text
from alignzoo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def is_chat(row: Row) -> bool:
    """Whether the row's prompt is chat messages."""
    return not isinstance(row.prompt, str)


def render(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[str]]:
    """A chat row's prompt, up to where the assistant's answer begins, and each completion as the template ends it.

    Raises UserError when there is no template, or when a whole chat does not begin with its prompt.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the rows are chat messages and the tokenizer has no chat template", where="data",
            hint="use a tokenizer of an instruction-tuned model, or data with plain strings",
        )  # fmt: skip
    messages = [dict(message) for message in row.prompt]  # type: ignore[arg-type]
    try:
        prompt = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        wholes = [
            str(tokenizer.apply_chat_template([*messages, *_answer(completion.text)], tokenize=False))
            for completion in row.completions
        ]
    except Exception as error:  # templates raise what they like: jinja errors, or their own refusals of a role
        raise UserError(f"the chat template refuses this row: {error}", where=row.id) from None
    for whole in wholes:
        if not whole.startswith(prompt):
            raise UserError(
                "the chat template writes the prompt differently when an answer follows, so the boundary can't be told",
                where=row.id, expected="a template whose generation prompt is the beginning of the assistant's turn",
            )  # fmt: skip
    return prompt, [whole[len(prompt) :] for whole in wholes]


def _answer(text: Text) -> list[dict[str, str]]:
    """A plain answer to a chat is the assistant's message."""
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else [dict(message) for message in text]
