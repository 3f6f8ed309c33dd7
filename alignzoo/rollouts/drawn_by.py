"""Draws of the policy, the reference or a mixture, as an objective's `drawn_by` declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.console import Advance
from alignzoo.data.trees import TokenIds
from alignzoo.interfaces.objective import Objective
from alignzoo.models.embeddings import embedding_rows
from alignzoo.models.ending import Ending
from alignzoo.models.mixture import Mixture
from alignzoo.recipe.draw import DrawConfig
from alignzoo.rollouts.draw import Draws, draw
from alignzoo.scoring.scorer import Scorer

POLICY, MIXTURE = "policy", "mixture"


def drawers(objective: Objective, config: DrawConfig) -> tuple[str, ...]:
    """Return what draws each completion of a prompt, (G,) names."""
    return objective.drawn_by or (POLICY,) * config.completions


def columns_of(who: str, objective: Objective, config: DrawConfig) -> NDArray[np.int64]:
    """Return the numbers of a prompt's draws that are by one of `drawers`."""
    return np.flatnonzero(np.array(drawers(objective, config)) == who)


def draw_all(
    policy: Scorer, reference: Scorer | None, objective: Objective, tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[TokenIds], rows: Sequence[int], config: DrawConfig, *, seed: int, rollout: int,
    progress: Advance | None = None, ending: Ending | None = None,
) -> Draws:  # fmt: skip
    """Draw completions of each prompt, in the order of prompts and then of `drawers`.

    Args:
        policy: The policy.
        reference: The policy before its first step, for objectives whose `drawn_by` names it.
        objective: Declares what draws.
        tokenizer: The policy's tokenizer.
        prompts: Token ids of the prompts.
        rows: The row of the data of each prompt.
        config: Temperature, top-p and limit of new tokens.
        seed: The run's seed.
        rollout: The number of the rollout.
        progress: Receives the number of draws finished since its last call.
        ending: What ends a completion; by default the end-of-sequence tokens.
    """
    names, parts = drawers(objective, config), list[Draws]()
    # A larger model pads the same vocabulary further, and the policy has no rows for that padding.
    known = embedding_rows(policy.model)
    place = np.zeros((len(prompts), len(names)), np.int64)
    for who in dict.fromkeys(names):
        numbers = columns_of(who, objective, config)
        count = len(prompts) * len(numbers)
        place[:, numbers] = sum(len(part) for part in parts) + np.arange(count).reshape(len(prompts), -1)
        scorer = policy if who in (POLICY, MIXTURE) else reference
        assert scorer is not None
        with scorer.adapters():
            found = draw(
                scorer.model, tokenizer, prompts, rows, config, seed=seed, rollout=rollout, numbers=numbers.tolist(),
                progress=progress, precision=policy.precision, ending=ending,
                mixture=_mixture(objective, reference) if who == MIXTURE else None,
                vocabulary=None if who == POLICY else known,
            )  # fmt: skip
        parts.append(found)
    return parts[0] if len(parts) == 1 else Draws.concat(parts).take(place.reshape(-1))


def _mixture(objective: Objective, reference: Scorer | None) -> Mixture:
    """Return what is mixed into the policy; the objective has a field `mixture_coef`."""
    assert reference is not None
    shares = [one.mixture_coef for one in objective.components if hasattr(one, "mixture_coef")]
    return Mixture(reference.model, shares[0], reference.base_alone)


def flags(objective: Objective, prompts: int) -> dict[str, NDArray[Any]]:
    """Return the flags (B G,) of who drew, `by_policy` etc., {} if all are the policy's."""
    names = np.array(objective.drawn_by)
    return {f"by_{who}": np.tile(names == who, prompts) for who in dict.fromkeys(objective.drawn_by)}
