"""Preference rows as text: the output of data sources and formats, before tokenization."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Message = Mapping[str, Any]
"""A chat message as the chat template reads it: `role`, `content`, and any of `tool_calls`, `name`, `tool_call_id`,
`reasoning_content`. Keys whose value is null are omitted."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Field names for the reasoning of a message. All of them are passed to a template as the first one."""
OWN_KWARGS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize",
              "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length",
              "documents", "tokenizer_kwargs", "sanitize_control_tokens")  # fmt: skip
"""Arguments of `apply_chat_template` that alignzoo sets itself, or that change more than the text."""
TIE = "tie"
"""The column of rows in which no completion is better: 1, or 0 in all others."""
Text = str | tuple[Message, ...]
"""Plain text, or chat messages for the tokenizer's chat template."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply: `text`, after turns that other completions do not share.

    `context` is empty unless the dialogues of a row differ before the last turn, or a chat has several assistant turns
    after its prompt.
    """

    text: Text
    """What is scored. In a chat it begins with the last assistant message; messages after that are not scored."""
    context: Text = ""
    """Turns before `text`. Of a chat the assistant's are scored too, unless `data.train_on` is `last_assistant`."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers of this completion, such as `score`, or `desirable` (1 or 0) in unpaired data."""
    ids: tuple[int, ...] = ()
    """Token ids of a completion that a model has drawn, the token that ends it included; see `Row.vocabulary`."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and its completions, best first.

    None are a prompt alone, one is unpaired data or data of SFT, two are a pair, more are a ranked list.
    """

    id: str
    """A stable id that is unique in the source: `file.jsonl.gz:17`, or the row's own id."""
    prompt: Text
    completions: tuple[Completion, ...]
    group: str
    """Rows of the same group stay on the same side of a split: the first human turn, or the whole prompt."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the row, such as a margin or a weight."""
    tools: tuple[Mapping[str, Any], ...] | None = None
    """JSON schemas of the functions for the chat template. None stands for those of the recipe."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template, such as `enable_thinking`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The record's other columns as they are, such as a gold answer: any JSON values."""
    ids: tuple[int, ...] = ()
    """Token ids of the prompt of a row that a model has completed."""
    vocabulary: str = ""
    """Digest of the vocabulary that `ids` belong to. A tokenizer with another one reads the texts."""
    prefix_tokens: int = 0
    """The prompt is the first so many tokens of its text; 0 for all of it."""

    @property
    def all_columns(self) -> dict[str, Any]:
        """Every column of the record besides its texts, as judges see them."""
        return {**self.columns, **self.extra}

    @property
    def scores_are_equal(self) -> bool:
        """True if there are several completions, and all have the same score."""
        scores = {completion.columns.get("score") for completion in self.completions}
        return len(self.completions) > 1 and len(scores) == 1 and None not in scores

    @property
    def is_training_text(self) -> bool:
        """True for data of SFT: one completion without a label."""
        return len(self.completions) == 1 and "desirable" not in self.completions[0].columns

    @property
    def has_preference(self) -> bool:
        """True for pairs, lists and labeled completions."""
        return bool(self.completions) and not self.is_training_text

    def alone(self) -> Row:
        """Return the prompt alone, for drawing replies.

        A chat that ends with the user's turn is all prompt.
        """
        prompt = self.prompt
        if self.is_training_text and not isinstance(prompt, str):
            (only,) = self.completions
            chat: tuple[Message, ...] = (*prompt, *only.context, *only.text)
            prompt = chat if chat[-1]["role"] != "assistant" else prompt
        return replace(self, prompt=prompt, completions=())


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that cannot be used, counted by `reason` and listed in the run folder."""

    id: str
    reason: str
    detail: str = ""


def check_template_kwargs(value: dict[str, Any]) -> dict[str, Any]:
    """Check variables of a chat template, and return them.

    Raises:
        ValueError: One has the name of an argument that is not a variable.
    """
    reserved = next((name for name in value if name in OWN_KWARGS), None)
    if reserved:
        raise ValueError(f"{reserved} is not a variable of a chat template: alignzoo sets it itself")
    return value


def words(message: Message) -> str:
    """Return the text of a message's content: its text parts joined, or "" without content."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def reasoning(message: Message) -> str:
    """Return the reasoning of a message that has a field for it, or ""."""
    return next((str(message[key]) for key in REASONING if message.get(key)), "")


def is_unfinished(messages: Sequence[Message]) -> bool:
    """Return True if the last message is the assistant's, so that a completion continues it."""
    return messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")


def plain_text(text: Text | Message) -> str:
    """Return a text, a message or messages as plain text; each tool call is a line of JSON."""
    if isinstance(text, str):
        return text
    if isinstance(text, Mapping):
        calls = (json.dumps(call, ensure_ascii=False) for call in text.get("tool_calls") or ())
        return "\n".join(filter(None, (words(text), *calls)))
    return "\n".join(map(plain_text, text))


def characters(row: Row) -> int:
    """Return the number of characters in a row's texts, tools, variables and other columns."""
    completions = [[one.text, one.context] for one in row.completions]
    return sum(map(len, strings([row.prompt, completions, row.tools, row.template_kwargs, row.extra])))


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a text, a list of messages or another JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)
