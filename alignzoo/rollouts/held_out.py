"""Draws for held-out prompts during training: the same random numbers at every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Advance, Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.trees import TokenIds
from alignzoo.models.ending import Ending
from alignzoo.models.generation import end_tokens
from alignzoo.recipe.draw import DrawConfig
from alignzoo.rollouts.draw import Draws, draw
from alignzoo.rollouts.figures import divergence
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.shares import in_shares
from alignzoo.scoring.scorer import Scorer

HELD_OUT = -1
"""The number of a rollout that held-out draws have. No step draws with it, so that they change no training."""


@dataclass(frozen=True)
class HeldOutDraws:
    """Draw a completion for each of some held-out prompts, and measure their KL."""

    policy: Scorer
    reference: Scorer | None
    """The policy before its first step; None where no KL divergence is measured."""
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    places: NDArray[np.int64]
    """(B,) places of the prompts that are drawn for."""
    config: DrawConfig
    """Temperature, top-p, limit of new tokens, and tokens of a batch."""
    seed: int
    ending: Ending
    budget: int
    """Token slots of a micro-batch."""
    screen: Screen
    ranks: Ranks

    @property
    def tokens(self) -> list[TokenIds]:
        """Token ids of the prompts."""
        return self.prompts.tokens(self.places)

    def draw(self) -> Draws:
        """Return B draws. They depend on weights, seed and row alone, whatever the step."""
        return draw_in_shares(
            self.policy, self.tokenizer, self.tokens, self.prompts.rows[self.places], self.config, seed=self.seed,
            rollout=HELD_OUT, ending=self.ending, screen=self.screen, ranks=self.ranks, numbers=[0],
        )  # fmt: skip

    def divergence(self, draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Return the figures of `alignzoo.rollouts.figures.divergence`, one value a draw."""
        return divergence(
            self.policy, self.reference, self.tokens, draws, len(draws), self.config.temperature, self.budget,
            self.screen, self.ranks,
        )  # fmt: skip


def ending_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DrawConfig) -> Ending:
    """Return what ends a draw: the model's and the recipe's end tokens, and stop strings."""
    own = {tokenizer.get_vocab()[token] for token in config.end_tokens}
    return Ending(tokenizer, frozenset(own | end_tokens(model, tokenizer)), config.stop)


def draw_in_shares(
    policy: Scorer, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[TokenIds], rows: NDArray[np.int64],
    config: DrawConfig, *, seed: int, rollout: int, ending: Ending, screen: Screen, ranks: Ranks, **options: Any,
) -> Draws:  # fmt: skip
    """Return draws of the policy alone; each process draws for its share of the prompts.

    Args:
        policy: The policy.
        tokenizer: Its tokenizer.
        tokens: Token ids of the prompts.
        rows: The row of the data of each prompt.
        config: How completions are drawn.
        seed: The run's seed.
        rollout: The number of the rollout.
        ending: What ends a completion.
        screen: Shows progress.
        ranks: The processes.
        options: Further arguments of `draw`.
    """
    each = 1 if options.get("greedy") else len(options.get("numbers", range(config.completions)))

    def make(prompts: list[TokenIds], own: list[int], advance: Advance) -> Draws:
        return draw(
            policy.model, tokenizer, prompts, own, config, seed=seed, rollout=rollout, progress=advance,
            precision=policy.precision, ending=ending, **options,
        )  # fmt: skip

    return make_in_shares(make, tokens, rows, config, each, screen, ranks)


def make_in_shares(
    make: Callable[[list[TokenIds], list[int], Advance], Draws], tokens: Sequence[TokenIds], rows: NDArray[np.int64],
    config: DrawConfig, each: int, screen: Screen, ranks: Ranks,
) -> Draws:  # fmt: skip
    """Return the draws for all prompts; `make` returns those for a process's share of them.

    Args:
        make: Draws for prompts with these token ids and rows, and reports its progress.
        tokens: Token ids of all prompts.
        rows: The row of the data of each prompt.
        config: How completions are drawn.
        each: Draws of each prompt, for the progress.
        screen: Shows progress.
        ranks: The processes.
    """
    sizes = [len(prompt) + config.max_new_tokens * config.completions for prompt in tokens]

    def work(mine: list[int]) -> list[Draws]:
        with screen.without_bars().bar("drawing", len(mine) * each) as advance:
            return make([tokens[i] for i in mine], rows[mine].tolist(), advance).by_prompt(len(mine))

    return Draws.concat(in_shares(ranks, sizes, work))
