"""Render chat messages with the tokenizer's chat template and find where the scored text begins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alignzoo.core.errors import UserError
from alignzoo.interfaces.rows import REASONING, Message, Row, Text, is_unfinished, reasoning, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["keep", "template"]
Tools = Sequence[Mapping[str, Any]]
PLACEHOLDER = "alignzooanswer"
"""Rendered in place of an answer to locate the text before and after it."""
STRFTIME_DIRECTIVES = [*"aAwdbBmyYHIpMSfzZjUWcxXGuV", *(f"-{letter}" for letter in "dmHIMSjyUW")]


class RenderedText(NamedTuple):
    """A prompt and its completion as one text."""

    text: str
    prompt_end: int
    """Characters of the row's prompt. The completion's own context is between here and `scored_from`."""
    scored_from: int
    """Characters before the scored text."""
    note: str = ""
    """Part of the answer that the template drops: `"thinking"`, `"tool calls"` or `"white space"`."""


def is_chat(row: Row) -> bool:
    """Return True if the row's prompt is a list of chat messages."""
    return not isinstance(row.prompt, str)


class ChatTemplate:
    """Renderer of chats for scoring.

    A rendered text ends with the token that ends the turn.

    Args:
        tokenizer: Tokenizer with a chat template.
        thinking: Whether an answer keeps thoughts that the template would drop (`"keep"`), or not (`"template"`).
        today: Date that `strftime_now` formats in the template. None means the current date.
        whole_turns: Keep the text that the template writes after the token that ends the turn.

    Raises:
        UserError: The tokenizer has no chat template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking = "keep", today: date | None = None,
        whole_turns: bool = False,
    ) -> None:  # fmt: skip
        if not tokenizer.chat_template:
            raise UserError(
                "the rows are chat messages and the tokenizer has no chat template", where="data",
                hint="use a tokenizer of an instruction-tuned model, or data with plain strings",
            )  # fmt: skip
        self.tokenizer, self.thinking, self.today = tokenizer, thinking, today
        self.end_tokens = () if whole_turns else tuple(str(token) for token in tokenizer.added_tokens_decoder.values())

    def render_row(self, row: Row) -> list[RenderedText]:
        """Render the prompt of a chat row with each of its completions. Raises UserError with the row's id."""
        messages: list[Message] = [*row.prompt]
        try:
            prompt = self.render_prompt(messages, row.tools)
            rendered = []
            for completion in row.completions:
                answer = answer_message(completion.text)
                if not completion.context:
                    rendered.append(self._with_answer(messages, prompt, answer, row.tools))
                    continue
                before = [*messages, *completion.context]
                own_prompt = self._render(before, row.tools, add_generation_prompt=True)
                full = self._new_turn(before, own_prompt, answer, row.tools)
                shared = _common_prefix_length(prompt, full.text[: full.scored_from])
                rendered.append(full._replace(prompt_end=shared))
        except UserError as error:
            raise UserError([replace(problem, where=row.id) for problem in error.problems]) from None
        except Exception as error:  # jinja errors, or exceptions that the template raises itself
            raise UserError(f"the chat template fails on this row: {error}", where=row.id) from None
        return rendered

    def render_prompt(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """Render messages up to where the answer begins. An assistant message at the end is left open."""
        option = "continue_final_message" if is_unfinished(messages) else "add_generation_prompt"
        return self._render(messages, tools, **{option: True})

    def render_chat(self, messages: Sequence[Message], answer: Message, tools: Tools = ()) -> RenderedText:
        """Render messages and the answer to them."""
        return self._with_answer(messages, self.render_prompt(messages, tools), answer, tools)

    def _with_answer(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> RenderedText:
        render = self._continued_turn if is_unfinished(messages) else self._new_turn
        return render(messages, prompt, answer, tools)

    def _new_turn(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> RenderedText:
        """Return the template's own text if it holds the whole answer, else prompt + answer + end of turn."""
        text = self._render([*messages, answer], tools)
        thoughts = reasoning(answer)
        content = _without_opened_tag(prompt, words(answer))
        behind = text[len(prompt) :] if text.startswith(prompt) else None
        dropped = [part for part in (thoughts, content) if not _contains(text if behind is None else behind, part)]
        note = "thinking" if dropped else self._dropped_calls(text, messages, answer, tools)
        if behind is not None and not dropped:
            changed = content not in behind or thoughts not in behind
            note = note or ("white space" if changed else "")
            return RenderedText(self._trim_turn(text), len(prompt), len(prompt), note)
        before, after = self._around(messages, answer, tools)
        if not prompt.startswith(before) and not before.startswith(prompt):
            raise UserError(
                "the chat template renders the prompt differently when an answer follows: its end is undefined",
                expected="a template whose generation prompt is the beginning of the assistant's turn",
            )  # fmt: skip
        no_marks = thoughts and "</think>" not in self._source(tools)  # the marks around thoughts are not known
        if self.thinking == "template" or no_marks:
            start = _common_prefix_length(prompt, text)
            return RenderedText(self._trim_turn(text), start, start, note)
        if thoughts:
            content = _without_opened_tag(prompt, f"<think>\n{thoughts}\n</think>\n\n{words(answer)}")
        return RenderedText(self._trim_turn(prompt + content + after), len(prompt), len(prompt), note)

    def _continued_turn(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> RenderedText:
        """Render an answer that continues the last message of the prompt."""
        begun, rest = messages[-1], words(answer)
        joined = {**begun, **answer, "content": words(begun) + rest}
        text = self._render([*messages[:-1], joined], tools)
        if text.startswith(prompt) and _contains(text[len(prompt) :], rest):
            note = "" if rest in text[len(prompt) :] else "white space"
            return RenderedText(self._trim_turn(text), len(prompt), len(prompt), note)
        if self.thinking == "template":
            start = _common_prefix_length(prompt, text)
            return RenderedText(self._trim_turn(text), start, start, "thinking")
        _, after = self._around(messages[:-1], joined, tools)
        return RenderedText(self._trim_turn(prompt + rest + after), len(prompt), len(prompt), "thinking")

    def _dropped_calls(self, text: str, messages: Sequence[Message], answer: Message, tools: Tools) -> str:
        """Return `"tool calls"` if the template renders the same text without them."""
        if not answer.get("tool_calls"):
            return ""
        plain = {key: value for key, value in answer.items() if key != "tool_calls"} | {"content": words(answer)}
        return "tool calls" if self._render([*messages, plain], tools) == text else ""

    def _around(self, messages: Sequence[Message], answer: Message, tools: Tools) -> tuple[str, str]:
        """Return the text that the template writes before and after an answer without thoughts."""
        plain = {key: value for key, value in answer.items() if key not in REASONING} | {"content": PLACEHOLDER}
        before, mark, after = self._render([*messages, plain], tools).rpartition(PLACEHOLDER)
        if not mark:
            raise UserError(
                "the chat template does not write the assistant's answer",
                expected="a template that writes the content of assistant messages",
            )
        return before, after

    def _trim_turn(self, text: str) -> str:
        """Strip white space after the token that ends the turn: it belongs to the next turn."""
        trimmed = text.rstrip()
        return trimmed if trimmed.endswith(self.end_tokens) else text

    def _source(self, tools: Tools) -> str:
        return str(self.tokenizer.get_chat_template(None, [dict(tool) for tool in tools] or None))

    def _render(self, messages: Sequence[Message], tools: Tools, **options: bool) -> str:
        arguments: dict[str, Any] = {"tools": [dict(tool) for tool in tools] or None, "tokenize": False, **options}
        if "strftime_now" in str(self.tokenizer.chat_template):
            arguments["chat_template"] = with_fixed_date(self._source(tools), self.today or date.today())
        return str(self.tokenizer.apply_chat_template([dict(message) for message in messages], **arguments))


def answer_message(text: Text) -> Message:
    """Return an answer as a message: plain text becomes a message of the assistant."""
    return {"role": "assistant", "content": text} if isinstance(text, str) else text[-1]


def with_fixed_date(template: str, today: date) -> str:
    """Return the template with a macro `strftime_now` that formats this date, at midnight."""
    moment = datetime.combine(today, time())
    filters = "".join(f"|replace('%{one}', '{moment.strftime('%' + one)}')" for one in STRFTIME_DIRECTIVES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format|replace('%%', '\0'){filters}|replace('\0', '%') }}}}"
    return f"{macro}{{% endmacro %}}\n{template}"


def _without_opened_tag(prompt: str, content: str) -> str:
    """Return the content without a first tag (`<think>`) that the generation prompt already ends with."""
    tag = re.match(r"\s*(<[^<>\s]+>)", content)
    if not tag or not prompt.rstrip().endswith(tag[1]):
        return content
    rest = content[tag.end() :]
    return rest.lstrip() if prompt[-1].isspace() else rest


def _common_prefix_length(a: str, b: str) -> int:
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _contains(text: str, part: str) -> bool:
    """Return True if the part is in the text, disregarding white space."""
    return part in text or "".join(part.split()) in "".join(text.split())
