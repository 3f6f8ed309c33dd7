"""Tokenize rows into token trees: ids of the whole text, cut at the end of the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.digests import digest
from alignzoo.core.errors import UserError
from alignzoo.data.assistant_turns import render_scored
from alignzoo.data.boundary import BoundaryTokenizer, Cut, Ids, common_prefix_length
from alignzoo.data.chat_template import ChatTemplate, Inputs, RenderedText, is_chat
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.data_source import TrainOn
from alignzoo.interfaces.rows import Row, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import TokensConfig

SPANNING = "spanning"
"""Note: one token contains the end of the prompt and the beginning of the completion."""


class Encoded(NamedTuple):
    """Token ids of a row."""

    prompt: Ids
    contexts: list[Ids]
    completions: list[Ids]
    """From the first scored token on."""
    spans: list[list[tuple[int, int]]]
    """(start, stop) of each completion's scored spans, in positions of its context and itself."""
    has_bos: bool
    """True if the prompt starts with BOS."""
    notes: frozenset[str] = frozenset()
    """`SPANNING`, and the notes of the chat template (`RenderedText.note`)."""


@dataclass
class TokenizedRows:
    """Trees, their rows (`trees[i]` is made of `rows[i]`), and the skipped rows."""

    trees: Trees
    rows: Sequence[Row]
    skipped: list[Skipped] = field(default_factory=list)
    truncated_prompts: int = 0
    truncated_completions: int = 0
    boundary: Counter[str] = field(default_factory=Counter)
    """Number of rows with each of the notes of `Encoded`."""
    further_pairs: Counter[str] = field(default_factory=Counter)
    """Pairs of a list beyond its first one, by the part of the row's id before the first "/": a mixture's source."""
    cut: Sequence[int] | NDArray[np.int32] = ()
    """Number of tokens that truncation takes from each tree, of its prompt and of all completions."""

    @property
    def prompts(self) -> NDArray[np.int64]:
        """A number of each row, equal where rows share a prompt, shape (rows,)."""
        return np.unique([row.group for row in self.rows], return_inverse=True)[1].astype(np.int64)


def tokenize(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, tokens: TokensConfig, today: date | None = None,
    train_on: TrainOn = "assistant",
) -> TokenizedRows:  # fmt: skip
    """Tokenize each prompt with each completion, and cut the ids at the end of the prompt.

    Prompt + branch are the ids of the whole text, with the special tokens that the tokenizer adds. For chats the text
    is that of the chat template, up to the token that ends the last turn. Of a chat the assistant's turns after the
    prompt are scored (`alignzoo.data.assistant_turns`). The prompt consists of the tokens that lie in
    it entirely and that precede every completion. EOS is appended to a plain-text completion that does not end with it,
    and is scored. A text of SFT without a prompt is scored from its second token on.

    Args:
        rows: Rows in the objective's shape.
        tokenizer: The policy's tokenizer.
        tokens: Length limits, treatment of thoughts, and inputs of the chat template.
        today: Date that a chat template may format. None means the current date.
        train_on: The turns of a chat that are scored.

    Raises:
        UserError: The rows need a chat template or an EOS token, and the tokenizer has none.
    """
    return build_trees(rows, Encoder(tokenizer, tokens, today, train_on)(rows), tokens)


class Encoder:
    """Tokenizer of rows.

    All texts are tokenized as one list, which a fast tokenizer processes in parallel without Python's lock.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tokens: TokensConfig, today: date | None = None,
        train_on: TrainOn = "assistant",
    ) -> None:  # fmt: skip
        self.tokenizer, self.tokens, self.today, self.train_on = tokenizer, tokens, today, train_on
        self.boundary = BoundaryTokenizer(tokenizer)
        self.template = self._chat_template() if tokenizer.chat_template else None
        self.eos: Ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        # The first completion token needs a token before it; models are trained to start after BOS or EOS.
        self.empty_prompt = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else self.eos

    def __call__(self, rows: Sequence[Row]) -> list[Encoded]:
        """Tokenize prompts, contexts and completions. Raises UserError as `tokenize` does."""
        rendered = [[] if self._has_own_ids(row) else self._render(row) for row in rows]
        chats = [is_chat(row) for row in rows]
        tokenized = {}
        for chat in (False, True):
            texts = [one for own, is_one in zip(rendered, chats, strict=True) if is_one == chat for one in own]
            positions = [list(_positions(one)) for one in texts]
            results = self.boundary.tokenize([one.text for one in texts], positions, special=not chat)
            tokenized[chat] = iter(results)
        return [
            self._drawn(row) if not own
            else self._split(own, results, chat, self._is_whole(row)) if row.completions
            else self._prompt(*results[0], row.prefix_tokens)
            for row, own, chat in zip(rows, rendered, chats, strict=True)
            for results in ([next(tokenized[chat]) for _ in own],)
        ]  # fmt: skip

    def texts(self, row: Row) -> list[str]:
        """Return the text of a row's prompt with each completion, as it is tokenized."""
        return [one.text for one in self._render(row)]

    def prefixes(self, part: TokenizedRows) -> list[str | None]:
        """Return the texts of prompts that are prefixes, None for every other row."""
        return [
            str(self.tokenizer.decode(part.trees[i].prompt.tolist(), skip_special_tokens=True))
            if row.prefix_tokens else None
            for i, row in enumerate(part.rows)
        ]  # fmt: skip

    def _has_own_ids(self, row: Row) -> bool:
        """Return True for a row whose ids are those of this tokenizer's vocabulary."""
        return bool(row.ids) and row.vocabulary == self.vocabulary

    @cached_property
    def vocabulary(self) -> str:
        """Digest of the tokenizer's vocabulary."""
        return vocabulary_digest(self.tokenizer)

    def _drawn(self, row: Row) -> Encoded:
        """Return the ids that a model has read and drawn, as they are."""
        prompt, completions = list(row.ids), [list(one.ids) for one in row.completions]
        if completions and self._is_whole(row):
            prompt, completions = prompt[:1], [prompt[1:] + completions[0]]
        spans = [[(0, len(own))] for own in completions]
        has_bos = prompt[:1] == [self.tokenizer.bos_token_id]
        return Encoded(prompt, [[] for _ in completions], completions, spans, has_bos)

    def _prompt(self, ids: Ids, cuts: Sequence[Cut], prefix: int = 0) -> Encoded:
        """Return the ids of a prompt alone, without an EOS token that the tokenizer adds.

        With `prefix` they are so many tokens of the text, and BOS before them.
        """
        prompt = ids[: cuts[0].tokens] or self.empty_prompt
        has_bos = prompt[:1] == [self.tokenizer.bos_token_id]
        return Encoded(prompt[: prefix + has_bos] if prefix else prompt, [], [], [], has_bos)

    def _chat_template(self) -> ChatTemplate:
        inputs = Inputs(self.tokens.tools, self.tokens.chat_template_kwargs)
        return ChatTemplate(self.tokenizer, self.tokens.thinking, self.today, inputs=inputs)

    def _is_whole(self, row: Row) -> bool:
        """Return True for a text that is scored from its second token on.

        Nothing stands before its first token.
        """
        return row.is_training_text and (self.train_on == "all" or row.prompt == "")

    def _render(self, row: Row) -> list[RenderedText]:
        if is_chat(row):
            self.template = self.template or self._chat_template()
            return render_scored(self.template, row, self.train_on)
        if not self.eos and row.completions:
            raise UserError(
                "plain-text completions end with the end-of-sequence token, and the tokenizer has none", where="data",
                expected="a tokenizer with eos_token",
            )  # fmt: skip
        size = len(row.prompt)
        return [
            RenderedText(f"{row.prompt}{one.context}{one.text}", size, size + len(one.context))
            for one in row.completions
        ] or [RenderedText(str(row.prompt), size, size)]

    def _split(
        self, rendered: Sequence[RenderedText], tokenized: Sequence[tuple[Ids, list[Cut]]], chat: bool, whole: bool
    ) -> Encoded:
        notes = {note for one in rendered for note in (one.note, *one.left_out) if note}
        limit = min(cuts[0].tokens for _, cuts in tokenized)
        size = 1 if whole else common_prefix_length([ids for ids, _ in tokenized], limit)
        contexts, completions, spans = [], [], []
        for one, (ids, cuts) in zip(rendered, tokenized, strict=True):
            count = 1 + 2 * len(one.turns)
            turns, scored, ends_early = cuts[1:count], cuts[count], cuts[count + 1 :]
            first = turns[0] if turns else scored
            start = first.tokens if (*one.turns, (one.scored_from, 0))[0][0] > one.prompt_end else size
            if first.spans or (first.tokens > start and not whole):
                notes.add(SPANNING)
            contexts.append(ids[size:start])
            own = ids[start : ends_early[0].tokens + ends_early[0].spans] if ends_early else ids[start:]
            completions.append(own if chat or own[-1:] == self.eos else own + self.eos)
            if not turns:
                spans.append([(start - size, start - size + len(completions[-1]))])
                continue
            if any(cut.spans for cut in (*turns[2::2], scored)):
                notes.add(SPANNING)
            ends = [cut.tokens + cut.spans for cut in turns[1::2]] + [start + len(completions[-1])]
            starts = [start, *(cut.tokens for cut in (*turns, scored)[2::2])]
            spans.append(apart([(a - size, b - size) for a, b in zip(starts, ends, strict=True)]))
        prompt = tokenized[0][0][:size] or self.empty_prompt
        has_bos = prompt[:1] == [self.tokenizer.bos_token_id]
        return Encoded(prompt, contexts, completions, spans, has_bos, frozenset(notes))


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 32 hex digits of the tokens and their ids: with the same ones, ids mean the same."""
    return digest(tokenizer.get_vocab())


def _positions(one: RenderedText) -> Iterator[int]:
    """Yield the characters at which the ids of a text are cut."""
    yield one.prompt_end
    for turn in one.turns:
        yield from turn
    yield one.scored_from
    if one.scored_to is not None:
        yield one.scored_to


def apart(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ordered spans that touch or overlap, and drop empty ones."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif start < stop:
            joined.append((start, stop))
    return joined


def build_trees(rows: Sequence[Row], encoded: Sequence[Encoded], tokens: TokensConfig) -> TokenizedRows:
    """Truncate encoded rows to the limits and build their trees.

    Unusable rows are listed as skipped.
    """
    kept: list[Row] = []
    trees: list[Tree] = []
    counts: Counter[str] = Counter()
    skipped: list[Skipped] = []
    boundary: Counter[str] = Counter()
    lost: list[int] = []
    for row, (prompt, contexts, completions, spans, has_bos, notes) in zip(rows, encoded, strict=True):
        cut = truncate(prompt, contexts, completions, tokens, keep_first=has_bos)
        if not prompt or not all(completions):
            cut = "empty completion" if prompt else "empty prompt"
        if isinstance(cut, str):
            skipped.append(Skipped(row.id, cut))
            continue
        cut_prompt, cut_completions = cut
        own = [context + completion for context, completion in zip(contexts, cut_completions, strict=True)]
        if len(own) > 1 and len(set(map(tuple, own))) < len(own):
            which = "chosen equals rejected" if len(own) == 2 else "two completions are equal"
            shorter = cut_prompt != prompt or cut_completions != list(completions)
            skipped.append(Skipped(row.id, f"{which} {'after truncation' if shorter else 'as tokens'}"))
            continue
        boundary.update(notes)
        lost.append(sum(map(len, (prompt, *completions))) - sum(map(len, (cut_prompt, *cut_completions))))
        counts["prompts"] += len(cut_prompt) < len(prompt)
        counts["completions"] += any(len(a) < len(b) for a, b in zip(cut_completions, completions, strict=True))
        branches = tuple(map(_branch, own, spans))
        trees.append(Tree(row.id, np.array(cut_prompt, dtype=np.int32), branches))
        kept.append(row)
    return TokenizedRows(
        Trees.build(trees), kept, skipped, counts["prompts"], counts["completions"], boundary, cut=lost
    )


def _branch(ids: Ids, spans: Sequence[tuple[int, int]]) -> Branch:
    """Return the branch of ids that may have been cut, up to its last scored one."""
    scored = [(start, min(stop, len(ids))) for start, stop in spans if start < len(ids)]
    return Branch.of(ids[: scored[-1][1]], *scored)


def truncate(
    prompt: Ids, contexts: Sequence[Ids], completions: Sequence[Ids], tokens: TokensConfig, keep_first: bool = False
) -> tuple[Ids, list[Ids]] | str:
    """Truncate the prompt and the completions to the limits.

    The order is that of the DPO authors' code. If the prompt and its longest completion exceed `max_length`, or the
    prompt is alone, it is cut to `max_prompt_length`. If that is not enough, the completions are cut at their end to
    the rest of `max_length`. (The authors' code cuts them to 256 tokens, even after a short prompt.) A branch's context
    counts as part of the prompt.

    Args:
        prompt: Ids of the prompt.
        contexts: Ids of each branch's context.
        completions: Ids of each branch's scored tokens.
        tokens: The limits, and which side of the prompt to cut.
        keep_first: Keep the prompt's first token (BOS) if its beginning is cut.

    Returns:
        The prompt and the completions, or the reason why the row can't be used.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), the authors' code.
    """
    longest_context = max(map(len, contexts), default=0)
    lengths = (len(context) + len(completion) for context, completion in zip(contexts, completions, strict=True))
    longest = max(lengths, default=tokens.max_length)  # a reply to a prompt alone may take all of it
    if len(prompt) + longest > tokens.max_length and len(prompt) + longest_context > tokens.max_prompt_length:
        room = tokens.max_prompt_length - longest_context
        if tokens.truncate_prompt == "never" or room < 1 + keep_first:
            return "prompt over the limit"
        if tokens.truncate_prompt == "keep_start":
            prompt = prompt[:room]
        else:
            prompt = prompt[:1] + prompt[len(prompt) - room + 1 :] if keep_first else prompt[-room:]
    cut = [
        completion[: tokens.max_length - len(prompt) - len(context)]
        for context, completion in zip(contexts, completions, strict=True)
    ]
    return prompt, cut
