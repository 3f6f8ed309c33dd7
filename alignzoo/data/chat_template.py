"""Render chats with the tokenizer's chat template and find where scored text begins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alignzoo.core.errors import UserError
from alignzoo.interfaces.rows import REASONING, Completion, Message, Row, Text, is_unfinished, reasoning, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["keep", "template"]
PLACEHOLDER = "alignzooanswer"
"""Rendered in place of an answer to locate the text before and after it."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
STRFTIME_DIRECTIVES = [*"aAwdbBmyYHIpMSfzZjUWcxXGuV", *(f"-{letter}" for letter in "dmHIMSjyUW")]


class Inputs(NamedTuple):
    """Inputs of a chat template beside the messages."""

    tools: Sequence[Mapping[str, Any]] | None = None
    """JSON schemas of functions. None stands for those of the recipe."""
    kwargs: Mapping[str, Any] = {}
    """Variables such as `enable_thinking`."""


NO_INPUTS = Inputs()


class RenderedText(NamedTuple):
    """A prompt and its completion as one text."""

    text: str
    prompt_end: int
    """Characters of the row's prompt. The completion's own context is between here and `scored_from`."""
    scored_from: int
    """Characters before the scored text."""
    note: str = ""
    """Part of the answer that the template drops: `"thinking"`, `"tool calls"` or `"white space"`."""
    turns: tuple[tuple[int, int], ...] = ()
    """Character ranges of scored turns before `scored_from`."""
    scored_to: int | None = None
    """End of the scored text. None for the end of the text."""
    left_out: frozenset[str] = frozenset()
    """Parts of scored turns that the template drops where it alone decides: `"turns"` (thoughts), `"tool calls"`."""


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
        inputs: Tools and variables for chats that have none of their own.

    Raises:
        UserError: The tokenizer has no chat template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking = "keep", today: date | None = None,
        whole_turns: bool = False, inputs: Inputs = NO_INPUTS,
    ) -> None:  # fmt: skip
        if not tokenizer.chat_template:
            raise UserError(
                "the rows are chat messages and the tokenizer has no chat template", where="data",
                hint="set model.chat_template: chatml (or llama3, zephyr, a file), or use the tokenizer of an "
                "instruction-tuned model, or data with plain strings",
            )  # fmt: skip
        self.tokenizer, self.thinking, self.today, self.inputs = tokenizer, thinking, today, inputs
        self.end_tokens = () if whole_turns else tuple(str(token) for token in tokenizer.added_tokens_decoder.values())

    def render_row(self, row: Row) -> list[RenderedText]:
        """Render the prompt of a chat row with each of its completions.

        Raises:
            UserError: The row can't be rendered. The error has the row's id.
        """
        with self.naming(row):
            inputs = inputs_of(row)
            prompt = self.render_prompt(row.prompt, inputs)  # type: ignore[arg-type]
            return [self._completion([*row.prompt], prompt, one, inputs) for one in row.completions]

    def _completion(
        self, messages: Sequence[Message], prompt: str, completion: Completion, inputs: Inputs
    ) -> RenderedText:
        answer = answer_message(completion.text)
        if not completion.context:
            return self._with_answer(messages, prompt, answer, inputs)
        before = [*messages, *completion.context]
        own_prompt = self.render(before, inputs, add_generation_prompt=True)
        full = self._new_turn(before, own_prompt, answer, inputs)
        return full._replace(prompt_end=common_start(prompt, full.text[: full.scored_from]))

    @contextmanager
    def naming(self, row: Row) -> Iterator[None]:
        """Turn errors of the block into a UserError with the row's id."""
        try:
            yield
        except UserError as error:
            raise UserError([replace(problem, where=row.id) for problem in error.problems]) from None
        except MemoryError:  # the limit of the child that renders
            raise
        except Exception as error:  # jinja errors, or exceptions that the template raises itself
            raise UserError(f"the chat template fails on this row: {error}", where=row.id) from None

    def render_prompt(self, messages: Sequence[Message], inputs: Inputs = NO_INPUTS) -> str:
        """Render messages up to the start of the answer.

        An assistant message at the end is left open.
        """
        if not messages:  # transformers renders no empty chat
            return self._around((), answer_message(PLACEHOLDER), inputs)[0]
        option = "continue_final_message" if is_unfinished(messages) else "add_generation_prompt"
        return self.render(messages, inputs, **{option: True})

    def render_chat(self, messages: Sequence[Message], answer: Message, inputs: Inputs = NO_INPUTS) -> RenderedText:
        """Render messages and the answer to them."""
        return self._with_answer(messages, self.render_prompt(messages, inputs), answer, inputs)

    def _with_answer(self, messages: Sequence[Message], prompt: str, answer: Message, inputs: Inputs) -> RenderedText:
        render = self._continued_turn if messages and is_unfinished(messages) else self._new_turn
        return render(messages, prompt, answer, inputs)

    def _new_turn(self, messages: Sequence[Message], prompt: str, answer: Message, inputs: Inputs) -> RenderedText:
        """Render a new assistant turn behind the prompt.

        The text is the template's own if it holds the whole answer, or if `thinking` is `template`. Else it is prompt +
        answer + end of turn.
        """
        text = self.render([*messages, answer], inputs)
        thoughts = reasoning(answer)
        content = _without_opened_tag(prompt, words(answer))
        behind = text[len(prompt) :] if text.startswith(prompt) else None
        dropped = [part for part in (thoughts, content) if not _contains(text if behind is None else behind, part)]
        no_calls = not dropped and self.drops_calls(text, [*messages, answer], len(messages), inputs)
        note = "thinking" if dropped else "tool calls" if no_calls else ""
        if behind is not None and not dropped:
            changed = content not in behind or thoughts not in behind
            note = note or ("white space" if changed else "")
            return RenderedText(self.trim_turn(text), len(prompt), len(prompt), note)
        before, after = self._around(messages, answer, inputs)
        if not prompt.startswith(before) and not before.startswith(prompt):
            raise UserError(
                "the chat template renders the prompt differently when an answer follows: its end is undefined",
                expected="a template whose generation prompt is the beginning of the assistant's turn",
            )  # fmt: skip
        no_marks = thoughts and "</think>" not in self._source(inputs)  # the marks around thoughts are not known
        if self.thinking == "template" or no_marks:
            start = common_start(prompt, text)
            return RenderedText(self.trim_turn(text), start, start, note)
        if thoughts:
            content = _without_opened_tag(prompt, f"<think>\n{thoughts}\n</think>\n\n{words(answer)}")
        return RenderedText(self.trim_turn(prompt + content + after), len(prompt), len(prompt), note)

    def _continued_turn(
        self, messages: Sequence[Message], prompt: str, answer: Message, inputs: Inputs
    ) -> RenderedText:
        """Render an answer that continues the last message of the prompt."""
        begun, rest = messages[-1], words(answer)
        joined = {**begun, **answer, "content": words(begun) + rest}
        text = self.render([*messages[:-1], joined], inputs)
        if text.startswith(prompt) and _contains(text[len(prompt) :], rest):
            note = "" if rest in text[len(prompt) :] else "white space"
            return RenderedText(self.trim_turn(text), len(prompt), len(prompt), note)
        if self.thinking == "template":
            start = common_start(prompt, text)
            return RenderedText(self.trim_turn(text), start, start, "thinking")
        _, after = self._around(messages[:-1], joined, inputs)
        return RenderedText(self.trim_turn(prompt + rest + after), len(prompt), len(prompt), "thinking")

    def drops_calls(self, text: str, messages: Sequence[Message], n: int, inputs: Inputs) -> bool:
        """Return True if the template drops the tool calls of message `n`.

        It then renders the same text without them.
        """
        own = messages[n]
        if not own.get("tool_calls"):
            return False
        plain = {key: value for key, value in own.items() if key != "tool_calls"} | {"content": words(own)}
        return self.render([*messages[:n], plain, *messages[n + 1 :]], inputs) == text

    def _around(self, messages: Sequence[Message], answer: Message, inputs: Inputs) -> tuple[str, str]:
        """Return the text that the template writes before and after an answer without thoughts."""
        plain = {key: value for key, value in answer.items() if key not in REASONING} | {"content": PLACEHOLDER}
        before, mark, after = self.render([*messages, plain], inputs).rpartition(PLACEHOLDER)
        if not mark:
            raise UserError(
                "the chat template does not write the assistant's answer",
                expected="a template that writes the content of assistant messages",
            )
        return before, after

    def trim_turn(self, text: str) -> str:
        """Strip white space after the token that ends the turn: it belongs to the next turn."""
        trimmed = text.rstrip()
        return trimmed if trimmed.endswith(self.end_tokens) else text

    def _source(self, inputs: Inputs) -> str:
        return str(self.tokenizer.get_chat_template(None, self._tools(inputs)))

    def _tools(self, inputs: Inputs) -> list[dict[str, Any]] | None:
        tools = self.inputs.tools if inputs.tools is None else inputs.tools
        return [dict(tool) for tool in tools or ()] or None

    def _arguments(self, inputs: Inputs) -> dict[str, Any]:
        arguments: dict[str, Any] = {**self.inputs.kwargs, **inputs.kwargs, "tools": self._tools(inputs)}
        if "strftime_now" in str(self.tokenizer.chat_template):
            arguments["chat_template"] = with_fixed_date(self._source(inputs), self.today or date.today())
        return arguments

    def render(self, messages: Sequence[Message], inputs: Inputs = NO_INPUTS, **options: bool) -> str:
        """Render messages as `apply_chat_template` does."""
        arguments = self._arguments(inputs) | {"tokenize": False, **options}
        return str(self.tokenizer.apply_chat_template([dict(message) for message in messages], **arguments))

    def has_marks(self, inputs: Inputs) -> bool:
        """Return True if the template marks what the assistant generates (`{% generation %}`)."""
        return MARKS.search(self._source(inputs)) is not None

    def render_marked(self, messages: Sequence[Message], inputs: Inputs) -> tuple[str, list[tuple[int, int]]]:
        """Render messages and find the text that the template marks as generated.

        Returns:
            The text, and the character range of each marked part.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        arguments = {"chat_template": self._source(inputs)} | self._arguments(inputs)
        chat = [dict(message) for message in messages]
        rendered: Any = render_jinja_template(
            [chat], return_assistant_tokens_mask=True, **{**self.tokenizer.special_tokens_map, **arguments}
        )
        (text,), (marked,) = rendered
        return text, [(start, stop) for start, stop in marked if start < stop]


def answer_message(text: Text) -> Message:
    """Return an answer as a message: plain text becomes a message of the assistant."""
    return {"role": "assistant", "content": text} if isinstance(text, str) else text[0]


def inputs_of(row: Row) -> Inputs:
    """Return the row's own inputs of the chat template."""
    return Inputs(row.tools, row.template_kwargs)


def with_fixed_date(template: str, today: date) -> str:
    """Return the template with a macro `strftime_now` that formats this date, at midnight."""
    moment = datetime.combine(today, time())
    filters = "".join(f"|replace('%{one}', '{moment.strftime('%' + one)}')" for one in STRFTIME_DIRECTIVES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format|replace('%%', '\0'){filters}|replace('\0', '%') }}}}"
    return f"{macro}{{% endmacro %}}\n{template}"


def _without_opened_tag(prompt: str, content: str) -> str:
    """Return the content without a first tag with which the generation prompt ends.

    `<think>` is such a tag.
    """
    tag = re.match(r"\s*(<[^<>\s]+>)", content)
    if not tag or not prompt.rstrip().endswith(tag[1]):
        return content
    rest = content[tag.end() :]
    return rest.lstrip() if prompt[-1].isspace() else rest


def common_start(a: str, b: str) -> int:
    """Return the number of characters that two texts have in common at their start."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def is_shortened(message: Message, text: str) -> bool:
    """Return True if the text lacks thoughts or words of the message.

    The tag that the words begin with may be part of the generation prompt.
    """
    content = words(message)
    inner = re.sub(r"\A\s*<[^<>\s]+>", "", content)
    return not (_contains(text, reasoning(message)) and (_contains(text, content) or _contains(text, inner)))


def _contains(text: str, part: str) -> bool:
    """Return True if the part is in the text, disregarding white space."""
    return part in text or "".join(part.split()) in "".join(text.split())
