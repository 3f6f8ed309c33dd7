"""Chat messages to text through the tokenizer's own template, and where in that text the scored part begins."""

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
ANSWER = "alignzooanswer"
"""Stands for an answer where the text around answers is looked for."""
DIRECTIVES = [*"aAwdbBmyYHIpMSfzZjUWcxXGuV", *(f"-{letter}" for letter in "dmHIMSjyUW")]


class Written(NamedTuple):
    """A prompt and its completion as one text."""

    text: str
    shared: int
    """Characters of the row's prompt; what follows up to `start` is the completion's own context."""
    start: int
    """Characters before what is scored."""
    note: str = ""
    """What the template drops of the answer: `"thinking"` (or another part), `"tool calls"`, `"white space"`."""


def is_chat(row: Row) -> bool:
    """True where the row's prompt is chat messages."""
    return not isinstance(row.prompt, str)


class Template:
    """A tokenizer's chat template with the date of `today` for `strftime_now`.

    A text ends with the token that ends the turn; with `whole_turns` it ends where the template does.

    Raises UserError when the tokenizer has none.
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
        self.ends = () if whole_turns else tuple(str(token) for token in tokenizer.added_tokens_decoder.values())

    def row(self, row: Row) -> list[Written]:
        """Write each completion of a chat row behind its prompt. Raises UserError with the row's id."""
        messages: list[Message] = [*row.prompt]
        try:
            shared = self.prompt(messages, row.tools)
            found = []
            for one in row.completions:
                context: list[Message] = [*one.context]
                answer = answer_message(one.text)
                if context:
                    messages_before = [*messages, *context]
                    own = self._render(messages_before, row.tools, add_generation_prompt=True)
                    whole = self._finished(messages_before, own, answer, row.tools)
                    whole = whole._replace(shared=_alike(shared, whole.text[: whole.start]))
                else:
                    whole = self._answered(messages, shared, answer, row.tools)
                found.append(whole)
        except UserError as error:
            raise UserError([replace(problem, where=row.id) for problem in error.problems]) from None
        except Exception as error:  # templates raise what they like: jinja errors, or their own complaint of a role
            raise UserError(f"the chat template fails on this row: {error}", where=row.id) from None
        return found

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """Messages up to where the assistant's answer begins; an assistant message at the end is left open."""
        how = {"continue_final_message": True} if is_unfinished(messages) else {"add_generation_prompt": True}
        return self._render(messages, tools, **how)

    def whole(self, messages: Sequence[Message], answer: Message, tools: Tools = ()) -> Written:
        """A chat with its answer, as it is scored: its text ends with the token that ends the turn."""
        return self._answered(messages, self.prompt(messages, tools), answer, tools)

    def _answered(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> Written:
        how = self._continued if is_unfinished(messages) else self._finished
        return how(messages, prompt, answer, tools)

    def _finished(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> Written:
        """The template's own text where it holds the whole answer; else prompt + answer + the end of the turn."""
        text = self._render([*messages, answer], tools)
        thoughts = reasoning(answer)
        content = _after_opening(prompt, words(answer))
        behind = text[len(prompt) :] if text.startswith(prompt) else None
        lost = [part for part in (thoughts, content) if not _holds(text if behind is None else behind, part)]
        note = "thinking" if lost else self._without_calls(text, messages, answer, tools)
        if behind is not None and not lost:
            changed = content not in behind or thoughts not in behind
            return Written(self._ended(text), len(prompt), len(prompt), note or ("white space" if changed else ""))
        before, after = self._around(messages, answer, tools)
        if not prompt.startswith(before) and not before.startswith(prompt):
            raise UserError(
                "the chat template writes the prompt differently when an answer follows, so the boundary can't be told",
                expected="a template whose generation prompt is the beginning of the assistant's turn",
            )  # fmt: skip
        nowhere = thoughts and "</think>" not in self._source(tools)  # no marks are known to put thoughts between
        if self.thinking == "template" or nowhere:
            start = _alike(prompt, text)
            return Written(self._ended(text), start, start, note)
        if thoughts:
            content = _after_opening(prompt, f"<think>\n{thoughts}\n</think>\n\n{words(answer)}")
        return Written(self._ended(prompt + content + after), len(prompt), len(prompt), note)

    def _continued(self, messages: Sequence[Message], prompt: str, answer: Message, tools: Tools) -> Written:
        """The same where the answer goes on with the last message of the prompt."""
        begun, rest = messages[-1], words(answer)
        whole = {**begun, **answer, "content": words(begun) + rest}
        text = self._render([*messages[:-1], whole], tools)
        if text.startswith(prompt) and _holds(text[len(prompt) :], rest):
            note = "" if rest in text[len(prompt) :] else "white space"
            return Written(self._ended(text), len(prompt), len(prompt), note)
        if self.thinking == "template":
            start = _alike(prompt, text)
            return Written(self._ended(text), start, start, "thinking")
        _, after = self._around(messages[:-1], whole, tools)
        return Written(self._ended(prompt + rest + after), len(prompt), len(prompt), "thinking")

    def _without_calls(self, text: str, messages: Sequence[Message], answer: Message, tools: Tools) -> str:
        """`"tool calls"` where the template writes the same without them."""
        if not answer.get("tool_calls"):
            return ""
        plain = {key: value for key, value in answer.items() if key != "tool_calls"} | {"content": words(answer)}
        return "tool calls" if self._render([*messages, plain], tools) == text else ""

    def _around(self, messages: Sequence[Message], answer: Message, tools: Tools) -> tuple[str, str]:
        """What the template writes before and after an answer without thoughts."""
        plain = {key: value for key, value in answer.items() if key not in REASONING} | {"content": ANSWER}
        before, mark, after = self._render([*messages, plain], tools).rpartition(ANSWER)
        if not mark:
            raise UserError("the chat template does not write the assistant's answer", expected="one that does")
        return before, after

    def _ended(self, text: str) -> str:
        """Without white space after the token that ends the turn: no model writes it, and the next turn begins so."""
        ended = text.rstrip()
        return ended if ended.endswith(self.ends) else text

    def _source(self, tools: Tools) -> str:
        return str(self.tokenizer.get_chat_template(None, [dict(tool) for tool in tools] or None))

    def _render(self, messages: Sequence[Message], tools: Tools, **how: bool) -> str:
        options: dict[str, Any] = {"tools": [dict(tool) for tool in tools] or None, "tokenize": False, **how}
        if "strftime_now" in str(self.tokenizer.chat_template):
            options["chat_template"] = dated(self._source(tools), self.today or date.today())
        return str(self.tokenizer.apply_chat_template([dict(message) for message in messages], **options))


def answer_message(text: Text) -> Message:
    """A plain answer to a chat is the assistant's message."""
    return {"role": "assistant", "content": text} if isinstance(text, str) else text[-1]


def dated(template: str, today: date) -> str:
    """The template with a `strftime_now` of its own that gives this date, at midnight."""
    moment = datetime.combine(today, time())
    given = "".join(f"|replace('%{one}', '{moment.strftime('%' + one)}')" for one in DIRECTIVES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format|replace('%%', '\0'){given}|replace('\0', '%') }}}}"
    return f"{macro}{{% endmacro %}}\n{template}"


def _after_opening(prompt: str, content: str) -> str:
    """The content without a first tag (`<think>`) that the generation prompt has written already."""
    tag = re.match(r"\s*(<[^<>\s]+>)", content)
    if not tag or not prompt.rstrip().endswith(tag[1]):
        return content
    rest = content[tag.end() :]
    return rest.lstrip() if prompt[-1].isspace() else rest


def _alike(a: str, b: str) -> int:
    """With how many equal characters both begin."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _holds(text: str, part: str) -> bool:
    """True where the part is in the text, white space aside."""
    return part in text or "".join(part.split()) in "".join(text.split())
