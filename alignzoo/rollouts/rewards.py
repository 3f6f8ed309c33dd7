"""Rewards of draws: the scores of the recipe's judges, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.interfaces.judge import Judge, Prompt
from alignzoo.recipe.rollout import Reward, RolloutConfig


@dataclass(frozen=True)
class Judged:
    """The reward of each draw, and whether it is kept."""

    reward: NDArray[np.float64]
    """(B, G) weighted sums; 0 where a draw is not kept."""
    kept: NDArray[np.bool_]
    """(B, G) False for draws that are left out: cut ones, or without a score."""


def score(
    rewards: Sequence[Reward], prompts: Sequence[Prompt], replies: Sequence[str], when: str
) -> NDArray[np.float64]:
    """Return every judge's scores, (R, B G): raw, NaN where a reward does not apply.

    Args:
        rewards: The judges.
        prompts: The prompt of each reply.
        replies: The replies as text.
        when: The step, for a message.

    Raises:
        RunFailed: A judge fails, or returns None, text, an infinite number or another count.
    """
    return np.stack([_scores(reward.judge, prompts, replies, when) for reward in rewards])


def _scores(judge: Judge, prompts: Sequence[Prompt], replies: Sequence[str], when: str) -> NDArray[np.float64]:
    what = f"{when}the reward {judge.name}"
    with attribute_errors(what, judge):
        found = list(judge.scores(prompts, replies))
    if len(found) != len(replies):
        raise RunFailed(f"{what} returned {len(found)} scores for {len(replies)} replies")
    for value, reply in zip(found, replies, strict=True):
        if value is None or isinstance(value, str | bytes | bool) or not _is_number(value):
            raise RunFailed(f"{what} returned {value!r:.40}, for the reply {reply!r:.80}; expected a number or NaN")
    numbers = np.array([float(value) for value in found])
    if np.isinf(numbers).any():
        reply = replies[int(np.isinf(numbers).argmax())]
        raise RunFailed(f"{what} is infinite, for the reply {reply!r:.80}")
    return numbers


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def combine(
    raw: NDArray[np.float64], finished: NDArray[np.bool_], config: RolloutConfig, names: Sequence[str], when: str = ""
) -> Judged:
    """Return the weighted sum of the scores that apply, and the draws that are kept.

    Args:
        raw: (R, B G) scores, NaN where a reward does not apply. A reward of weight 0 is recorded and no more.
        finished: (B G,) False for cut draws.
        config: Weights, limits, and the treatment of cut and unscored draws.
        names: The ids of the B prompts.
        when: The step, for a message.

    Raises:
        RunFailed: No reward applies to a draw, and the recipe has `missing: stop`.
    """
    weights = np.array([reward.weight for reward in config.rewards])[:, None]
    limits = np.array([reward.clip or np.inf for reward in config.rewards])[:, None]
    scored = (~np.isnan(raw) & (weights != 0)).any(0)
    total = np.nansum(weights * raw.clip(-limits, limits), axis=0)
    shape = (len(names), len(finished) // len(names))
    if config.missing == "stop" and not scored.all():
        row = names[int((~scored).argmax()) // shape[1]]
        raise RunFailed(
            f"{when}no reward applies to a completion of row {row}; rollout.missing=drop leaves such completions out"
        )
    if config.unfinished == "penalty":
        total = total - config.penalty * ~finished
    kept = scored & (finished | (config.unfinished != "drop"))
    return Judged(np.where(kept, total, 0.0).reshape(shape), kept.reshape(shape))
