"""Rewards of draws: the scores of the recipe's judges, and their weighted sum."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.interfaces.judge import Judge, Prompt
from alignzoo.recipe.rollout import Reward, RolloutConfig


@dataclass(frozen=True)
class Asked:
    """What judges are given: one entry a reply."""

    prompts: Sequence[Prompt]
    replies: Sequence[str]
    columns: Sequence[Mapping[str, Any]] = ()
    """The other columns of each reply's row."""
    finished: Sequence[bool] = ()
    """False where the limit of new tokens has cut a reply."""


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


def score(rewards: Sequence[Reward], asked: Asked, when: str) -> NDArray[np.float64]:
    """Return every judge's scores, (R, B G): raw, NaN where a reward does not apply.

    Args:
        rewards: The judges.
        asked: Prompts, replies as text, and what else a judge may take.
        when: The step, for a message.

    Raises:
        RunFailed: A judge fails, or returns None, text, an infinite number or another count.
    """
    if not rewards:
        return np.zeros((0, len(asked.replies)))
    return np.stack([_scores(reward.judge, asked, when) for reward in rewards])


def _scores(judge: Judge, asked: Asked, when: str) -> NDArray[np.float64]:
    what, replies = f"{when}the reward {judge.name}", asked.replies
    taken = inspect.signature(judge.scores).parameters
    more = {name: getattr(asked, name) for name in ("columns", "finished") if name in taken}
    with attribute_errors(what, judge):
        found = list(judge.scores(asked.prompts, replies, **more))
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
    scored = (~np.isnan(raw) & (weights != 0)).any(0) | (not config.rewards)
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
