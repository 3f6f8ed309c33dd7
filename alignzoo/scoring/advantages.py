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
from alignzoo.scoring.scored_batch import OLD, OLD_VALUE, ScoredBatch
from alignzoo.scoring.scorer import VALUE


def advantage_input(
    builder: BatchBuilder, batch: ScoredBatch, objective: Objective | None, state: Mapping[str, float],
    requirements: Requirements | None = None,
) -> Group:  # fmt: skip
    """Return all rows of a batch as `advantage` sees them.

    Log-probs are there if the objective declares `advantage_reads_log_probs`; then the batch has `old_log_prob`,
    `ref_log_prob` where the objective has a reference, and `old_value` where it has a critic.
    """
    term = objective or builder.objective
    needs = replace(requirements or term.requirements, statistics=())
    dtype = batch.like.dtype if batch.values else torch.float64
    bare = replace(batch, values={"none": torch.zeros(1, dtype=dtype)})
    if term.advantage_reads_log_probs:
        names = (OLD, "ref_log_prob", OLD_VALUE)
        bare.values = {name: batch.values[name] for name in names if name in batch.values}
        bare.values["log_prob"] = bare.values[OLD]
        if OLD_VALUE in bare.values:
            bare.values[VALUE] = bare.values[OLD_VALUE]
    else:
        needs = replace(needs, reference="none", tokens=False)
    declared: Any = needs
    example = next(iter(builder.examples(bare, declared, state))).example
    assert isinstance(example, Group)
    return replace(example, _advantage=None, _returns=None)


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
    return _checked(objective, "advantage", group, names, when)


@torch.no_grad()
def returns(objective: Objective, group: Group, names: str, when: str = "") -> Tensor:
    """Return the critic's targets, (N,). Arguments and errors are those of `advantages`."""
    return _checked(objective, "returns", group, names, when)


def _checked(objective: Objective, call: str, group: Group, names: str, when: str) -> Tensor:
    """Call one of the two methods, and check the shape and the numbers of its result."""
    what = f"the {call} of {objective.name}"
    with attribute_errors(f"{when}{what}", objective, f", for rows {names}"):
        found = getattr(objective, call)(group)
    tokens, each = (int(group.completions.length.sum()),), tuple(group.reward.shape)
    if not isinstance(found, Tensor) or tuple(found.shape) not in ((tokens,) if call == "returns" else (each, tokens)):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        one = f"one a token, {tokens}"
        expected = one if call == "returns" else f"one a completion, {each}, or {one}"
        raise RunFailed(f"{what} has shape {shape}; expected {expected}")
    if not bool(found.isfinite().all()):
        raise RunFailed(f"{when}{what} is not finite, for rows {names}")
    return found.detach()
