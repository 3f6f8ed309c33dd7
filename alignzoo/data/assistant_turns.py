"""Find the scored parts of a rendered chat: the assistant's turns after the prompt.

A template that marks what the assistant generates (`{% generation %}`) decides for data of SFT. Otherwise a turn is the
text that the template adds to the chat before it, its generation prompt included, up to the token that ends the turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignzoo.core.errors import UserError
from alignzoo.data.chat_template import (
    PLACEHOLDER,
    ChatTemplate,
    Inputs,
    RenderedText,
    answer_message,
    common_start,
    inputs_of,
    is_shortened,
)
from alignzoo.interfaces.data_source import TrainOn
from alignzoo.interfaces.rows import Message, Row, is_unfinished

Range = tuple[int, int]


def render_scored(template: ChatTemplate, row: Row, train_on: TrainOn) -> list[RenderedText]:
    """Render the prompt of a chat row with each of its completions, and find what is scored.

    With `all`, a row of SFT is one text that is scored from its beginning. A prompt alone is one text of which nothing
    is scored. Raises UserError with the row's id.
    """
    inputs = inputs_of(row)
    with template.naming(row):
        if not row.completions:
            prompt = template.render_prompt(row.prompt, inputs)  # type: ignore[arg-type]
            return [RenderedText(prompt, len(prompt), len(prompt))]
        if row.is_training_text and train_on == "all":
            chat = _messages(row)
            text = template.render(chat, inputs)
            return [RenderedText(text, 0, 0, left_out=_left_out(template, chat, 0, text, inputs))]
        if row.is_training_text and template.has_marks(inputs) and not (row.prompt and is_unfinished(row.prompt)):  # type: ignore[arg-type]
            return [_marked(template, row, train_on, inputs)]
        rendered = template.render_row(row)
        if train_on == "last_assistant":
            return rendered
        first = len(row.prompt) + _shared(row)
        found = []
        for one, completion in zip(rendered, row.completions, strict=True):
            before: list[Message] = [*row.prompt, *completion.context]
            own = [n for n in range(first, len(before)) if before[n]["role"] == "assistant"]
            base = one.text[: one.scored_from]
            turns = tuple(_turn(template, before, n, base, inputs) for n in own)
            # a generation prompt that the template leaves out of earlier turns may begin as such a turn does
            ends = min(one.prompt_end, turns[0][0]) if turns else one.prompt_end
            lost = frozenset(
                name
                for n, (start, stop) in zip(own, turns, strict=True)
                for name in _lost_in(before[n], base[start:stop])
            )
            found.append(one._replace(turns=turns, prompt_end=ends, left_out=lost))
        return found


def _shared(row: Row) -> int:
    """Return the number of leading context messages that all completions of a row share.

    It is 0 for a single completion.
    """
    contexts = [completion.context for completion in row.completions]
    if len(contexts) == 1:
        return 0
    together = zip(*contexts, strict=False)
    apart = (n for n, messages in enumerate(together) if any(one != messages[0] for one in messages))
    return next(apart, min(map(len, contexts)))


def _messages(row: Row) -> list[Message]:
    completion = row.completions[0]
    own = (answer_message(completion.text),) if isinstance(completion.text, str) else completion.text
    return [*row.prompt, *completion.context, *own]


def _marked(template: ChatTemplate, row: Row, train_on: TrainOn, inputs: Inputs) -> RenderedText:
    text, marked = template.render_marked(_messages(row), inputs)
    context = row.completions[0].context if train_on == "last_assistant" else ()
    before: list[Message] = [*row.prompt, *context]
    if any(message["role"] == "assistant" for message in before):
        marked = marked[len(template.render_marked(before, inputs)[1]) :]
    if not marked:
        raise UserError(
            "the {% generation %} marks of the chat template enclose nothing of the assistant's turns",
            expected="a template that marks what the assistant generates, or one without marks",
        )  # fmt: skip
    scored = "\n".join(text[start:stop] for start, stop in marked)
    lost = _left_out(template, _messages(row), len(before), scored, inputs)
    *turns, (start, stop) = marked
    end = common_start(template.render_prompt(row.prompt, inputs), text) if context else marked[0][0]  # type: ignore[arg-type]
    return RenderedText(text, end, start, "", tuple(turns), stop, lost)


def _left_out(
    template: ChatTemplate, messages: Sequence[Message], first: int, scored: str, inputs: Inputs
) -> frozenset[str]:
    """Return the kinds of parts that the template drops from the assistant's messages.

    The kinds are `"turns"` and `"tool calls"`. Messages before `first` do not count.
    """
    own = [n for n in range(first, len(messages)) if messages[n]["role"] == "assistant"]
    lost = {"turns"} if any(is_shortened(messages[n], scored) for n in own) else set()
    if any(messages[n].get("tool_calls") for n in own):
        whole = template.render(messages, inputs)
        lost |= {"tool calls" for n in own if template.drops_calls(whole, messages, n, inputs)}
    return frozenset(lost)


def _lost_in(message: Message, turn: str) -> list[str]:
    """Return what the text of a turn lacks of its message: `"turns"`, `"tool calls"`."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    called = all(str(call.get("name", "")) in turn for call in calls if isinstance(call, Mapping))
    return ["turns"] * is_shortened(message, turn) + ["tool calls"] * (not called)


def _turn(template: ChatTemplate, messages: Sequence[Message], n: int, base: str, inputs: Inputs) -> Range:
    before, through = messages[:n], template.trim_turn(template.render(messages[: n + 1], inputs))
    if before and base.startswith(through):
        prompt = template.render(before, inputs, add_generation_prompt=True)
        if through.startswith(prompt):
            return len(prompt), len(through)
    # The template writes this turn in another way when turns follow, without its thoughts for example, or the
    # generation prompt begins the answer. With a placeholder for its content, the text around it is the same.
    plain = {"role": "assistant", "content": PLACEHOLDER}
    around = template.render([*before, plain, *messages[n + 1 :]], inputs, add_generation_prompt=True)
    head, mark, tail = around.partition(PLACEHOLDER)
    if not mark or not base.startswith(head) or not base[len(head) :].endswith(tail):
        raise UserError(
            f"the chat template writes message {n + 1} in another way when messages follow: its end is undefined",
            expected="a template with {% generation %} marks around what the assistant generates",
            hint="data.train_on: last_assistant scores the last turn alone",
        )  # fmt: skip
    rest = tail.lstrip()
    end = max((len(token) for token in template.end_tokens if token and rest.startswith(token)), default=0)
    return len(head), len(base) - len(tail) + (len(tail) - len(rest) + end if end else 0)
