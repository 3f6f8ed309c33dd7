"""Rewards of draws: the scores of the recipe's judges, and their weighted sum."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.concurrency import run_coroutine, together
from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.interfaces.judge import Asked
from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.rewards import Reward
from alignzoo.rollouts.comparisons import is_number, win_rates


@dataclass(frozen=True)
class Judged:
    """The reward of each draw, and whether it is kept."""

    reward: NDArray[np.float64]
    """(B, G) weighted sums; 0 where a draw is not kept."""
    kept: NDArray[np.bool_]
    """(B, G) False for draws that are left out: cut ones, or without a score."""

    @property
    def has_spread(self) -> NDArray[np.bool_]:
        """(B,) True for prompts with two kept draws of different rewards."""
        low, high = (np.where(self.kept, self.reward, end) for end in (np.inf, -np.inf))
        found: NDArray[np.bool_] = high.max(1) > low.min(1)
        return found

    def only(self, columns: NDArray[np.int64]) -> Judged:
        """Return some draws of each prompt."""
        return Judged(self.reward[:, columns], self.kept[:, columns])


def reward_names(rewards: Sequence[Reward]) -> list[str]:
    """Return a name for each reward; a number tells apart those of the same judge."""
    names = [reward.judge.name for reward in rewards]
    return [name if name not in names[:i] else f"{name}_{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def score(rewards: Sequence[Reward], asked: Asked, when: str, each: int = 1) -> NDArray[np.float64]:
    """Return every judge's scores, (R, B G): raw, NaN where a reward does not apply.

    Those of a judge that only compares are the `win_rates` of a prompt's draws.

    Judges whose `scores` returns a coroutine wait together, after the others.

    Args:
        rewards: The judges.
        asked: Prompts, replies as text, and what else a judge may take.
        when: The step, for a message.
        each: Draws of a prompt.

    Raises:
        RunFailed: A judge fails, or returns None, text, an infinite number or another count.
    """
    if not rewards:
        return np.zeros((0, len(asked.replies)))
    what = {n: f"{when}the reward {name}" for n, name in enumerate(reward_names(rewards))}
    waits: dict[int, Coroutine[Any, Any, Sequence[Any]]] = {}

    async def waiting(n: int) -> list[Any]:
        with attribute_errors(what[n], rewards[n].judge):
            return list(await waits[n])

    found: dict[int, list[Any]] = {}
    try:
        for n, reward in enumerate(rewards):
            if reward.judge.only_compares:
                found[n] = list(win_rates(reward.judge, asked, each, what[n]))
                continue
            with attribute_errors(what[n], reward.judge):
                scores = asked.scored_by(reward.judge)
                if inspect.iscoroutine(scores):
                    waits[n] = scores
                else:
                    found[n] = list(scores)
        found |= zip(waits, run_coroutine(together([waiting(n) for n in waits])) if waits else [], strict=True)
    finally:
        for coroutine in waits.values():
            coroutine.close()  # without effect on one that has ended
    return np.stack([_numbers(found[n], asked, what[n]) for n in range(len(rewards))])


def _numbers(found: Sequence[Any], asked: Asked, what: str) -> NDArray[np.float64]:
    """Return scores as numbers. Raises RunFailed with the row of one that is none."""
    if len(found) != len(asked.replies):
        raise RunFailed(f"{what} returned {len(found)} scores for {len(asked.replies)} replies")

    def of(n: int) -> str:
        row = f" of row {asked.rows[n]}" if asked.rows else ""
        return f"for the reply {asked.replies[n]!r:.80}{row}"

    for n, value in enumerate(found):
        if isinstance(value, bool) or not is_number(value):
            raise RunFailed(f"{what} returned {value!r:.40}, {of(n)}; expected a number or NaN")
    numbers = np.array([float(value) for value in found])
    if np.isinf(numbers).any():
        raise RunFailed(f"{what} is infinite, {of(int(np.isinf(numbers).argmax()))}")
    return numbers


def combine(
    raw: NDArray[np.float64], finished: NDArray[np.bool_], config: DrawConfig, names: Sequence[str], when: str = "",
    *, normalize: bool = True,
) -> Judged:  # fmt: skip
    """Return the weighted sum of the scores that apply, and the draws that are kept.

    Args:
        raw: (R, B G) scores, NaN where a reward does not apply. A reward of weight 0 is recorded and no more.
        finished: (B G,) False for cut draws.
        config: Weights, limits, and the treatment of cut and unscored draws.
        names: The ids of the B prompts.
        when: The step, for a message.
        normalize: Normalize the rewards that the recipe normalizes, as is learnt from; figures are without.

    Raises:
        RunFailed: No reward applies to a draw, and the recipe has `missing: stop`.
    """
    weights = np.array([reward.weight for reward in config.rewards])[:, None]
    limits = np.array([reward.clip or np.inf for reward in config.rewards])[:, None]
    scored = (~np.isnan(raw) & (weights != 0)).any(0) | (not config.rewards)
    shape = (len(names), len(finished) // len(names))
    clipped = raw.clip(-limits, limits)
    use = finished | (config.unfinished != "drop")
    for n, reward in enumerate(config.rewards if normalize else ()):
        if reward.normalize:
            clipped[n] = _normalized(clipped[n], use, shape, reward.normalize)
    total = np.nansum(weights * clipped, axis=0)
    if config.missing == "stop" and not scored.all():
        row = names[int((~scored).argmax()) // shape[1]]
        counted = [
            name for name, reward in zip(reward_names(config.rewards), config.rewards, strict=True) if reward.weight
        ]
        raise RunFailed(
            f"{when}no reward ({', '.join(counted)}) applies to a completion of row {row}; rollout.missing=drop leaves "
            "such completions out"
        )
    if config.unfinished == "penalty":
        total = total - config.penalty * ~finished
    kept = scored & use
    return Judged(np.where(kept, total, 0.0).reshape(shape), kept.reshape(shape))


def _normalized(
    values: NDArray[np.float64], use: NDArray[np.bool_], shape: tuple[int, int], over: str
) -> NDArray[np.float64]:
    """Return (values - mean) / (std + 1e-4), as TRL's `normalize_then_sum`.

    Mean and std are over each prompt's draws or over all. The mean and the standard deviation, with divisor n - 1, are
    of the draws in `use` that the reward applies to. One draw has no spread, and the value 0. Source: Liu et al. 2026
    (GDPO, arXiv:2601.05242).
    """
    table = values.reshape(shape if over == "group" else (1, -1))
    known = (use & ~np.isnan(values)).reshape(table.shape)
    count = known.sum(1, keepdims=True)
    centered = table - np.where(known, table, 0.0).sum(1, keepdims=True) / count.clip(1)
    spread = np.sqrt(np.where(known, centered**2, 0.0).sum(1, keepdims=True) / (count - 1).clip(1))
    return (centered / (spread + 1e-4)).reshape(-1)
