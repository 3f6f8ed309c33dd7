"""Prompts to draw completions for: the trunks of data rows, with the texts for judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.arrays import evenly_spaced
from alignzoo.core.errors import UserError
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Branch, TokenIds, Tree, Trees
from alignzoo.interfaces.judge import Asked, Prompt
from alignzoo.rollouts.draw import Draws

PROBED = 64
"""Prompts that the layout is chosen on."""


@dataclass(frozen=True)
class Prompts:
    """Rows of a part of the data whose prompt ends where a reply begins, with room for one."""

    data: TokenizedRows
    rows: NDArray[np.int64]
    """Indices of the usable rows."""

    @classmethod
    def of(
        cls, data: TokenizedRows, max_length: int, new_tokens: int, say: Callable[[str], None], section: str = "rollout"
    ) -> Prompts:
        """Choose the usable rows, and say how many others there are.

        Rows whose dialogues differ before the last turn are left out, and prompts that leave less room than
        `new_tokens` in `max_length` tokens. `section` is that of the recipe, for messages.

        Raises:
            UserError: There are rows, and none is usable.
        """
        trees = data.trees
        lengths = trees.prompt_lengths
        long = lengths + new_tokens > max_length
        rows = np.flatnonzero(~trees.parted & ~long)
        if len(trees) and not len(rows):
            raise UserError(
                f"no prompt leaves room for {new_tokens} new tokens in {max_length}", where=f"{section}.max_new_tokens",
                expected="a smaller limit, or a larger tokens.max_length",
            )  # fmt: skip
        if long.any():
            say(f"{section}: {int(long.sum()):,} prompts leave no room for {new_tokens} new tokens, and are left out")
        return cls(data, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, places: NDArray[np.int64]) -> list[str]:
        """Return the ids of some rows."""
        return [self.data.trees.ids[int(row)] for row in self.rows[places]]

    def tokens(self, places: NDArray[np.int64]) -> list[TokenIds]:
        """Return the token ids of some prompts."""
        return [self.data.trees[int(row)].prompt for row in self.rows[places]]

    def best(self, places: NDArray[np.int64]) -> list[Branch]:
        """Return the best completion that the data has for each of some prompts."""
        return [self.data.trees[int(row)].branches[0] for row in self.rows[places]]

    def texts(self, places: NDArray[np.int64]) -> list[Prompt]:
        """Return some prompts as the data has them: text or messages."""
        return [self.data.rows[int(row)].prompt for row in self.rows[places]]

    def columns(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the other columns of some rows."""
        return [self.data.rows[int(row)].all_columns for row in self.rows[places]]

    def asked(self, places: NDArray[np.int64], replies: Sequence[str], draws: Draws) -> Asked:
        """Return what judges are given of draws and their texts, of equally many to each prompt."""
        repeated = np.repeat(np.arange(len(places)), len(replies) // len(places))
        texts, columns, ids = self.texts(places), self.columns(places), self.ids(places)
        return Asked(
            [texts[i] for i in repeated], replies, [columns[i] for i in repeated], draws.finished.tolist(),
            [own.tolist() for own in draws], [ids[i] for i in repeated],
        )  # fmt: skip

    def spaced(self, count: int) -> NDArray[np.int64]:
        """Return the places of at most `count` evenly spaced prompts."""
        return evenly_spaced(len(self), count)

    def probes(self, completions: int, new_tokens: int, vocabulary: int) -> Trees:
        """Return some prompts, the longest among them, with random continuations.

        The continuations stand for the draws to come.

        Args:
            completions: Continuations of each prompt.
            new_tokens: Limit of a continuation; their lengths are 1, the limit, and between.
            vocabulary: Token ids are below it.
        """
        lengths = self.data.trees.prompt_lengths[self.rows]
        places = np.unique([*self.spaced(PROBED).tolist(), int(lengths.argmax())])
        dice = np.random.default_rng(0)
        sizes = np.linspace(new_tokens, 1, completions).astype(int)
        return Trees.build(
            Tree(id, prompt, tuple(Branch(dice.integers(0, vocabulary, size).astype(np.int32)) for size in sizes))
            for id, prompt in zip(self.ids(places), self.tokens(places), strict=True)
        )


def longest_prompt(parts: Sequence[Prompts]) -> int:
    """Return the number of tokens of the longest prompt."""
    return max(int(part.data.trees.prompt_lengths[part.rows].max(initial=0)) for part in parts)
