"""Figures of a rollout: rewards, KL divergence from the reference, lengths, and draws that teach nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.trees import Branch, TokenIds, Tree, Trees
from alignzoo.recipe.rollout import Reward
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.rewards import Judged, reward_names
from alignzoo.rollouts.scores import at_temperature, score_rows, token_cuts
from alignzoo.scoring.scorer import Scorer


def figures(draws: Draws, raw: NDArray[np.float64], judged: Judged, rewards: Sequence[Reward]) -> dict[str, float]:
    """Return the figures of draws and their rewards; those without a value are left out.

    `reward` is the mean of the weighted sum over the draws that are kept, with the standard error over prompts, and
    `reward_NAME` the mean of one judge's raw scores. `no_spread` is the share of prompts whose draws all have the same
    reward, `left_out` that of draws that are not kept.
    """
    kept, reward = judged.kept, judged.reward
    counts = kept.sum(1)
    by_prompt = reward.sum(1)[counts > 0] / counts[counts > 0]
    own = np.where(kept, reward, np.nan)
    known = own[counts > 0]
    equal = np.nanmax(known, 1) == np.nanmin(known, 1) if len(known) else np.ones(0, bool)
    found = {"reward": reward.sum() / max(1, counts.sum()), "reward_se": _standard_error(by_prompt)}
    for name, scores in zip(reward_names(rewards), raw, strict=True):
        applies = scores[~np.isnan(scores)]
        if len(applies):
            found[f"reward_{name}"] = applies.mean()
        if len(applies) < len(scores):
            found[f"reward_{name}_missing"] = 1 - len(applies) / len(scores)
    found |= {"length": draws.lengths.mean(), "unfinished": 1 - draws.finished.mean(), "left_out": 1 - kept.mean()}
    if kept.shape[1] > 1:
        found["no_spread"] = (len(kept) - len(known) + equal.sum()) / len(kept)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def divergence(
    policy: Scorer, reference: Scorer | None, prompts: Sequence[TokenIds], draws: Draws, most: int, temperature: float,
    budget: int, screen: Screen, ranks: Ranks | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return figures of at most `most` evenly spaced draws, one a draw; nothing without a reference.

    `kl` is the sum over a draw's tokens of KL(policy || reference) at each, in nats, which estimates the KL divergence
    of whole completions without bias. `kl_sampled` is the log-ratio, another estimate. `entropy` is the mean over
    tokens. `mismatch` is the log-prob by the scorer minus that by the sampler, where draws were at temperature 1.

    Args:
        policy: The policy that drew.
        reference: The reference.
        prompts: The prompts, with equally many draws each.
        draws: All draws.
        most: Number of draws that are measured.
        temperature: Temperature of the draws.
        budget: Token slots of a micro-batch.
        screen: Shows messages.
        ranks: The processes, or None for one.
    """
    if reference is None or not most:
        return {}
    each = len(draws) // len(prompts)
    count = min(most, len(draws))
    chosen = [(i * len(draws)) // count for i in range(count)]
    trees = Trees.build(Tree(f"draw {n}", prompts[n // each], (Branch(draws[n]),)) for n in chosen)
    with at_temperature(temperature, policy, reference):
        found = score_rows(policy, trees, budget, screen.info, ("reverse_kl", "entropy"), reference, ranks)
    cuts = token_cuts(trees)[:-1]
    sums = {name: np.add.reduceat(values.astype(np.float64), cuts) for name, values in found.items()}
    values = {
        "kl": sums["reverse_kl"], "kl_sampled": sums["log_prob"] - sums["ref_log_prob"],
        "entropy": sums["entropy"] / draws.lengths[chosen],
    }  # fmt: skip
    if temperature == 1:
        values["mismatch"] = sums["log_prob"] - draws.log_prob[chosen]
    return values


def divergence_figures(values: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return the means of `divergence`, with standard errors of `kl`, and the largest mismatch."""
    names = [name for name in ("kl", "kl_sampled", "entropy") if name in values]
    found = {name: float(np.mean(values[name])) for name in names}
    if len(values.get("kl", ())) > 1:
        found["kl_se"] = _standard_error(values["kl"])
    if "mismatch" in values:
        found["mismatch"] = float(np.abs(values["mismatch"]).max())
    return found


def _standard_error(values: NDArray[Any]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
