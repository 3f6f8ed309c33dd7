"""Rows to token trees: the ids are those of the whole text, and nothing is cut silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignzoo.core.errors import UserError
from alignzoo.data.boundary import Cut, Ids, Reader, common
from alignzoo.data.chat_template import Template, Thinking, Written, is_chat
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.rows import Row, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import TokensConfig

SPANNING = "spanning"
"""A note: a token holds the prompt's end and the completion's beginning."""


class Encoded(NamedTuple):
    """The ids of a row."""

    prompt: Ids
    contexts: list[Ids]
    completions: list[Ids]
    has_bos: bool
    """True where BOS opens the prompt."""
    notes: frozenset[str] = frozenset()
    """`SPANNING`, and what the chat template drops of the answers (`Written.note`)."""


@dataclass
class TokenizedRows:
    """Trees, the rows they came from (`trees[i]` is `rows[i]`), and what became of the others."""

    trees: Trees
    rows: Sequence[Row]
    skipped: list[Skipped] = field(default_factory=list)
    truncated_prompts: int = 0
    truncated_completions: int = 0
    boundary: Counter[str] = field(default_factory=Counter)
    """How many rows have each of the notes of `Encoded`."""


def tokenize(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, tokens: TokensConfig, today: date | None = None
) -> TokenizedRows:
    """Tokenize each prompt together with each completion, and cut where the prompt ends.

    Prompt + branch are the ids of the whole text, special tokens as the tokenizer itself adds them; of chats, those of
    the whole text that the chat template writes, up to the token that ends the last turn. The prompt is the tokens that
    lie in it entirely, as far as they are the same before every completion. EOS closes a plain-text completion, unless
    it is there already, and is scored. `today` is the date that a template may write. Raises UserError when a chat
    template is needed and missing, or EOS.
    """
    return trees_of(rows, Encoder(tokenizer, tokens.thinking, today)(rows), tokens)


class Encoder:
    """Makes ids of rows. The tokenizer gets one long list of texts, which it works on with a thread for each core and
    without Python's lock."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking = "keep", today: date | None = None
    ) -> None:
        self.tokenizer, self.thinking, self.today = tokenizer, thinking, today
        self.reader = Reader(tokenizer)
        self.template = Template(tokenizer, thinking, today) if tokenizer.chat_template else None
        self.eos: Ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        # An empty prompt has no token to predict the first one from: these are what models were trained to follow.
        self.nothing = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else self.eos

    def __call__(self, rows: Sequence[Row]) -> list[Encoded]:
        """The ids of each row's prompt, contexts and completions. Raises UserError as `tokenize` does."""
        written = [self._written(row) for row in rows]
        chats = [is_chat(row) for row in rows]
        found = {}
        for chat in (False, True):
            texts = [one for own, wanted in zip(written, chats, strict=True) if wanted == chat for one in own]
            cuts = [(one.shared, one.start) for one in texts]
            found[chat] = iter(self.reader.read([one.text for one in texts], cuts, special=not chat))
        return [
            self._encoded(own, [next(found[chat]) for _ in own], chat) for own, chat in zip(written, chats, strict=True)
        ]

    def _written(self, row: Row) -> list[Written]:
        if is_chat(row):
            self.template = self.template or Template(self.tokenizer, self.thinking, self.today)
            return self.template.row(row)
        if not self.eos:
            raise UserError("the tokenizer has no end-of-sequence token to close plain completions with", where="data")
        size = len(row.prompt)
        return [
            Written(f"{row.prompt}{one.context}{one.text}", size, size + len(one.context)) for one in row.completions
        ]

    def _encoded(self, written: Sequence[Written], read: Sequence[tuple[Ids, list[Cut]]], chat: bool) -> Encoded:
        notes = {one.note for one in written if one.note}
        size = common([ids for ids, _ in read], min(shared.tokens for _, (shared, _) in read))
        contexts, completions = [], []
        for one, (ids, (_, start)) in zip(written, read, strict=True):
            scored = start.tokens if one.start > one.shared else size
            if start.spans or start.tokens > scored:
                notes.add(SPANNING)
            contexts.append(ids[size:scored])
            own = ids[scored:]
            completions.append(own if chat or own[-1:] == self.eos else own + self.eos)
        prompt = read[0][0][:size] or self.nothing
        return Encoded(prompt, contexts, completions, prompt[:1] == [self.tokenizer.bos_token_id], frozenset(notes))


def trees_of(rows: Sequence[Row], encoded: Sequence[Encoded], tokens: TokensConfig) -> TokenizedRows:
    """Trees of what was encoded, cut to the limits."""
    kept: list[Row] = []
    trees: list[Tree] = []
    counts: Counter[str] = Counter()
    skipped: list[Skipped] = []
    boundary: Counter[str] = Counter()
    for row, (prompt, contexts, completions, has_bos, notes) in zip(rows, encoded, strict=True):
        cut = truncate(prompt, contexts, completions, tokens, keep_first=has_bos)
        if not prompt or not all(completions):
            cut = "empty completion" if prompt else "empty prompt"
        if isinstance(cut, str):
            skipped.append(Skipped(row.id, cut))
            continue
        cut_prompt, cut_completions = cut
        wholes = [context + completion for context, completion in zip(contexts, cut_completions, strict=True)]
        if len(wholes) > 1 and len(set(map(tuple, wholes))) < len(wholes):
            which = "chosen equals rejected" if len(wholes) == 2 else "two completions are equal"
            shorter = cut_prompt != prompt or cut_completions != list(completions)
            skipped.append(Skipped(row.id, f"{which} {'after truncation' if shorter else 'as tokens'}"))
            continue
        boundary.update(notes)
        counts["prompts"] += len(cut_prompt) < len(prompt)
        counts["completions"] += any(len(a) < len(b) for a, b in zip(cut_completions, completions, strict=True))
        branches = tuple(
            Branch(np.array(whole, dtype=np.int32), len(context))
            for whole, context in zip(wholes, contexts, strict=True)
        )
        trees.append(Tree(row.id, np.array(cut_prompt, dtype=np.int32), branches))
        kept.append(row)
    return TokenizedRows(Trees.build(trees), kept, skipped, counts["prompts"], counts["completions"], boundary)


def truncate(
    prompt: Ids, contexts: Sequence[Ids], completions: Sequence[Ids], tokens: TokensConfig, keep_first: bool = False
) -> tuple[Ids, list[Ids]] | str:
    """The prompt and completions cut to the limits, or why the row can't be used.

    The DPO authors' order: when the prompt with the longer completion is over `max_length`, the prompt is cut to
    `max_prompt_length`; where that is not enough, the completions are cut at their end (to what the prompt leaves of
    `max_length`; the authors' code cuts them to 256 tokens even after a short prompt). A branch's context counts as
    prompt. `keep_first` keeps the prompt's first token (BOS) when its beginning is cut.
    """
    longest_context = max(map(len, contexts))
    whole = max(len(context) + len(completion) for context, completion in zip(contexts, completions, strict=True))
    if len(prompt) + whole > tokens.max_length and len(prompt) + longest_context > tokens.max_prompt_length:
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
