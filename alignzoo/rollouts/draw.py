"""Completions drawn from the policy, a function of weights, seed, step, row and number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.arrays import concat_ranges, offsets_of
from alignzoo.core.console import Advance
from alignzoo.data.trees import TokenIds
from alignzoo.models.ending import Ending
from alignzoo.models.generation import Reply, generate_replies
from alignzoo.models.mixture import Mixture
from alignzoo.recipe.draw import DrawConfig

Key = tuple[int, int, int]
"""Rollout, row of the data, and number of the draw: with the seed all that its random numbers depend on."""


@dataclass(frozen=True)
class Draws:
    """Completions of B prompts, G of each, one after the other: B G in all."""

    tokens: TokenIds
    """(T,) token ids of all completions, the end-of-sequence token included where it was drawn."""
    cuts: NDArray[np.int64]
    """(B G + 1,) where each completion starts."""
    finished: NDArray[np.bool_]
    """(B G,) False where the limit of new tokens has cut a completion."""
    log_prob: NDArray[np.float64]
    """(B G,) log-probs that the sampler has seen, at temperature 1, in nats. Nothing is learnt from them."""

    @classmethod
    def of(cls, replies: Sequence[Reply]) -> Draws:
        """Join completions."""
        sizes = [len(reply.tokens) for reply in replies]
        return cls(
            np.concatenate([reply.tokens for reply in replies]).astype(np.int32),
            offsets_of(sizes),
            np.array([reply.finished for reply in replies]), np.array([reply.log_prob for reply in replies]),
        )  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Draws:
        """Return the draws that `arrays` has written, under names with a prefix."""
        tokens, cuts, finished, log_prob = (
            arrays[prefix + name] for name in ("tokens", "cuts", "finished", "log_prob")
        )
        return cls(tokens, cuts, finished.astype(np.bool_), log_prob)

    @classmethod
    def concat(cls, parts: Sequence[Draws]) -> Draws:
        """Join draws of several prompts."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            np.concatenate([part.tokens for part in parts]), offsets_of(lengths),
            np.concatenate([part.finished for part in parts]), np.concatenate([part.log_prob for part in parts]),
        )  # fmt: skip

    def by_prompt(self, prompts: int) -> list[Draws]:
        """Divide the draws of so many prompts."""
        each = len(self) // prompts
        starts = range(0, len(self), each)
        return [
            Draws(
                self.tokens[self.cuts[n] : self.cuts[n + each]], self.cuts[n : n + each + 1] - self.cuts[n],
                self.finished[n : n + each], self.log_prob[n : n + each],
            )
            for n in starts
        ]  # fmt: skip

    def take(self, numbers: NDArray[np.int64]) -> Draws:
        """Return some draws, in this order."""
        lengths = self.lengths[numbers]
        return Draws(
            self.tokens[concat_ranges(self.cuts[:-1][numbers], lengths)], offsets_of(lengths),
            self.finished[numbers], self.log_prob[numbers],
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the draws as arrays, to write them."""
        return {"tokens": self.tokens, "cuts": self.cuts, "finished": self.finished.astype(np.uint8),
                "log_prob": self.log_prob}  # fmt: skip

    def __len__(self) -> int:
        return len(self.finished)

    def __getitem__(self, number: int) -> TokenIds:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.tokens[self.cuts[number] : self.cuts[number + 1]]

    def __iter__(self) -> Iterator[TokenIds]:
        return (self[number] for number in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B G,) number of tokens of each completion."""
        return np.diff(self.cuts)

    def texts(self, ending: Ending) -> list[str]:
        """Return the texts of the completions without endings, special tokens and outer spaces."""
        return [text.strip() for text in ending.texts(list(self))]


def draw(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[TokenIds], rows: Sequence[int],
    config: DrawConfig, *, seed: int, rollout: int, greedy: bool = False, numbers: Sequence[int] | None = None,
    progress: Advance | None = None, precision: str = "float32", mixture: Mixture | None = None,
    ending: Ending | None = None, vocabulary: int | None = None,
) -> Draws:  # fmt: skip
    """Draw completions of each prompt: first all of the first prompt, then of the second etc.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        prompts: Token ids of the prompts.
        rows: The row of the data of each prompt.
        config: Number of completions, temperature, top-p, limit of new tokens, and tokens of a batch.
        seed: The run's seed.
        rollout: The number of the rollout.
        greedy: Take the likeliest tokens, once for each prompt.
        numbers: The numbers of each prompt's draws, by default from 0 to the recipe's `completions`.
        progress: Receives the number of draws finished since its last call.
        precision: `bfloat16` draws under autocast.
        mixture: A second model to mix in at each token.
        ending: What ends a completion; by default the end-of-sequence tokens.
        vocabulary: Only token ids below it are drawn; by default all of the model's.
    """
    own = range(1) if greedy else range(config.completions) if numbers is None else numbers
    repeated = [prompt for prompt in prompts for _ in own]
    keys: list[Key] = [(rollout, int(row), number) for row in rows for number in own]
    return Draws.of(
        generate_replies(
            model, tokenizer, repeated, temperature=0 if greedy else config.temperature, top_p=config.top_p,
            max_new_tokens=config.max_new_tokens, seed=seed, progress=progress, keys=keys,
            texts=False, entropy=False, precision=precision, mixture=mixture, ending=ending,
            vocabulary=vocabulary, budget=config.batch_tokens,
        )
    )  # fmt: skip
