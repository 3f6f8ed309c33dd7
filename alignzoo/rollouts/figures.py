"""Figures of a rollout: rewards, KL from the reference, lengths, share without spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.arrays import evenly_spaced
from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.trees import Branch, TokenIds, Tree, Trees
from alignzoo.evaluation.aggregate import standard_error
from alignzoo.interfaces.actor_critic import explained_variance
from alignzoo.recipe.rewards import Reward
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.rewards import Judged, reward_names
from alignzoo.rollouts.scores import at_temperature, score_rows, token_cuts
from alignzoo.scoring.scored_batch import OLD_VALUE, RETURNS
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
    known = bool(rewards) and bool(counts.any())
    error = standard_error(by_prompt, np.arange(len(by_prompt)))
    found = {"reward": reward.sum() / counts.sum(), "reward_se": error} if known else {}
    for name, scores in zip(reward_names(rewards), raw, strict=True):
        applies = scores[~np.isnan(scores)]
        if len(applies):
            found[f"reward_{name}"] = applies.mean()
        if len(applies) < len(scores):
            found[f"reward_{name}_missing"] = 1 - len(applies) / len(scores)
    found |= {"length": draws.lengths.mean(), "unfinished": 1 - draws.finished.mean(), "left_out": 1 - kept.mean()}
    if kept.shape[1] > 1 and rewards:
        found["no_spread"] = 1 - judged.has_spread.mean()
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def critic_figures(trees: Trees, scored: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return figures of a critic's values on the draws that are kept, {} without a critic.

    `value` and `returns` are means over tokens. `explained_variance` is 1 - Var(returns - value) / Var(returns), of the
    values before the first update; it is left out where all returns are equal.
    """
    if RETURNS not in scored:
        return {}
    kept = np.repeat(trees.columns["kept"] > 0.5, np.diff(token_cuts(trees)))
    value, target = (torch.from_numpy(scored[name].astype(np.float64))[kept] for name in (OLD_VALUE, RETURNS))
    if not len(value):
        return {}
    found = {"value": value.mean(), "returns": target.mean(), "explained_variance": explained_variance(value, target)}
    return {name: float(one) for name, one in found.items() if math.isfinite(one)}


def divergence(
    policy: Scorer, reference: Scorer | None, prompts: Sequence[TokenIds], draws: Draws, most: int, temperature: float,
    budget: int, screen: Screen, ranks: Ranks | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return figures of at most `most` evenly spaced draws, {} without a reference.

    Each figure has one value a draw. `kl` is the sum over a draw's tokens of KL(policy || reference) at each, in nats,
    which estimates the KL divergence of whole completions without bias. `kl_sampled` is the log-ratio, another
    estimate. `entropy` is the mean over tokens, `prompt` the number of the draw's prompt. `mismatch` is the log-prob by
    the scorer minus that by the sampler, where draws were at temperature 1.

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
    chosen = evenly_spaced(len(draws), most).tolist()
    trees = Trees.build(Tree(f"draw {n}", prompts[n // each], (Branch(draws[n]),)) for n in chosen)
    with at_temperature(temperature, policy, reference):
        found = score_rows(policy, trees, budget, screen.info, ("reverse_kl", "entropy"), reference, ranks)
    cuts = token_cuts(trees)[:-1]
    sums = {name: np.add.reduceat(values.astype(np.float64), cuts) for name, values in found.items()}
    values = {
        "kl": sums["reverse_kl"], "kl_sampled": sums["log_prob"] - sums["ref_log_prob"],
        "entropy": sums["entropy"] / draws.lengths[chosen], "prompt": np.array(chosen) // each,
    }  # fmt: skip
    if temperature == 1:
        values["mismatch"] = sums["log_prob"] - draws.log_prob[chosen]
    return values


def divergence_figures(values: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return the means of `divergence`, errors of both KL estimates, the largest mismatch.

    Standard errors are clustered by prompt.
    """
    names = [name for name in ("kl", "kl_sampled", "entropy") if name in values]
    found = {name: float(np.mean(values[name])) for name in names}
    for name in ("kl", "kl_sampled"):
        if name in values:
            found[f"{name}_se"] = standard_error(values[name], values["prompt"])
    if "mismatch" in values:
        found["mismatch"] = float(np.abs(values["mismatch"]).max())
    return {name: value for name, value in found.items() if math.isfinite(value)}
