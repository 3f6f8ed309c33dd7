"""Rows to token trees: the boundary between prompt and completion is token-exact, and nothing is cut silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.rows import Row, Skipped
from alignzoo.data.template import is_chat, render
from alignzoo.errors import UserError
from alignzoo.tree import Branch, Tree, Trees

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import TokensConfig

Ids = list[int]
Encoded = tuple[Ids, list[Ids], list[Ids], bool]
"""Prompt, contexts and completions of a row, and whether BOS opens the prompt."""


@dataclass
class Tokenised:
    """Trees, the rows they came from (`trees[i]` is `rows[i]`), and what became of the others."""

    trees: Trees
    rows: Sequence[Row]
    skipped: list[Skipped] = field(default_factory=list)
    truncated_prompts: int = 0
    truncated_completions: int = 0


def tokenise(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, tokens: TokensConfig) -> Tokenised:
    """Tokenise each prompt once and each completion by itself, so that prompt + branch is exactly what is scored.

    BOS opens a prompt if the tokenizer itself puts it before a text; EOS closes a plain-text completion, unless the
    text ends with it already, and is scored (a chat template ends its own turns). Raises UserError when a chat
    template is needed and missing, or EOS.
    """
    return trees_of(rows, encode(rows, tokenizer), tokens)


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """The ids of each row's prompt, contexts and completions. The tokenizer gets one long list of texts, which it works
    on with a thread for each core and without Python's lock. Raises UserError as `tokenise` does."""
    encoder = _Encoder(tokenizer)
    for row in rows:
        encoder.want(row)
    return encoder.all()


def trees_of(rows: Sequence[Row], encoded: Sequence[Encoded], tokens: TokensConfig) -> Tokenised:
    """Trees of what was encoded, cut to the limits."""
    kept: list[Row] = []
    trees: list[Tree] = []
    counts: Counter[str] = Counter()
    skipped: list[Skipped] = []
    for row, (prompt, contexts, completions, has_bos) in zip(rows, encoded, strict=True):
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
            skipped.append(Skipped(row.id, f"{which} after truncation"))
            continue
        counts["prompts"] += len(cut_prompt) < len(prompt)
        counts["completions"] += any(len(a) < len(b) for a, b in zip(cut_completions, completions, strict=True))
        branches = tuple(
            Branch(np.array(whole, dtype=np.int32), len(context))
            for whole, context in zip(wholes, contexts, strict=True)
        )
        trees.append(Tree(row.id, np.array(cut_prompt, dtype=np.int32), branches))
        kept.append(row)
    return Tokenised(Trees.build(trees), kept, skipped, counts["prompts"], counts["completions"])


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


class _Encoder:
    """Collects every text first, so that the tokenizer works on one long list."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.bos: Ids = []
        self.eos: Ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        if tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
            self.bos = [tokenizer.bos_token_id]
        self.texts = [""]  # what most contexts are, once for all
        self.places: list[list[int]] = []
        self.plain: list[bool] = []

    def want(self, row: Row) -> None:
        chat = is_chat(row)
        prompt, completions = render(row, self.tokenizer) if chat else (row.prompt, [c.text for c in row.completions])
        places = []
        for text in (prompt, *(c.context for c in row.completions), *completions):
            places.append(len(self.texts) if text else 0)
            if text:
                self.texts.append(text)
        self.places.append(places)
        self.plain.append(not chat)

    def all(self) -> list[Encoded]:
        if any(self.plain) and not self.eos:
            raise UserError("the tokenizer has no end-of-sequence token to close plain completions with", where="data")
        # An empty prompt has no token to predict the first one from: these are what models were trained to follow.
        nothing = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else self.eos
        options = {"add_special_tokens": False, "return_attention_mask": False}
        ids = self.tokenizer(self.texts, **options)["input_ids"]
        rows: list[Encoded] = []
        for plain, places in zip(self.plain, self.places, strict=True):
            size = len(places) // 2
            prompt, *others = (ids[place] for place in places)
            contexts, completions = others[:size], others[size:]
            if plain:
                completions = [own if own[-1:] == self.eos else own + self.eos for own in completions]
            if self.bos and prompt[:1] != self.bos:
                prompt = self.bos + prompt
            prompt = prompt or nothing
            rows.append((prompt, contexts, completions, bool(self.bos) and prompt[:1] == self.bos))
        return rows
