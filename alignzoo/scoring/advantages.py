"""Advantages of drawn completions: input and checked result of `Objective.advantage`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.interfaces.group import Group
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import Requirements
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch


def advantage_input(
    builder: BatchBuilder, batch: ScoredBatch, objective: Objective | None, state: Mapping[str, float],
    requirements: Requirements | None = None,
) -> Group:  # fmt: skip
    """Return all rows of a batch as `advantage` sees them.

    Log-probs are there if the objective declares `advantage_reads_log_probs`; then the batch has `old_log_prob`, and
    `ref_log_prob` where the objective has a reference.
    """
    term = objective or builder.objective
    needs = replace(requirements or term.requirements, statistics=())
    dtype = batch.like.dtype if batch.values else torch.float64
    bare = replace(batch, values={"none": torch.zeros(1, dtype=dtype)})
    if term.advantage_reads_log_probs:
        bare.values = {name: batch.values[name] for name in ("old_log_prob", "ref_log_prob") if name in batch.values}
        bare.values["log_prob"] = bare.values["old_log_prob"]
    else:
        needs = replace(needs, reference="none", tokens=False)
    declared: Any = needs
    example = next(iter(builder.examples(bare, declared, state))).example
    assert isinstance(example, Group)
    return replace(example, _advantage=None)


@torch.no_grad()
def advantages(objective: Objective, group: Group, names: str, when: str = "") -> Tensor:
    """Return the objective's advantages: (B, G), or (N,) for one a token.

    Args:
        objective: The objective.
        group: All prompts of a rollout.
        names: The rows, for a message.
        when: The step, for a message.

    Raises:
        RunFailed: `advantage` fails, or its result has another shape or is not finite.
    """
    with attribute_errors(f"{when}the advantage of {objective.name}", objective, f", for rows {names}"):
        found = objective.advantage(group)
    tokens = (int(group.completions.length.sum()),)
    if not isinstance(found, Tensor) or found.shape not in (group.reward.shape, tokens):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RunFailed(
            f"the advantage of {objective.name} has shape {shape}; expected one a completion, "
            f"{tuple(group.reward.shape)}, or one a token, {tokens}"
        )
    if not bool(found.isfinite().all()):
        raise RunFailed(f"{when}the advantage of {objective.name} is not finite, for rows {names}")
    return found.detach()
