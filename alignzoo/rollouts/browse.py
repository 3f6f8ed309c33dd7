"""Read what a policy wrote: the draws of a rollout with their scores and advantages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from alignzoo.core.arrays import mmap_safetensors
from alignzoo.core.artifacts import read_verified
from alignzoo.core.door import read_json_lines, validated
from alignzoo.core.errors import UserError
from alignzoo.rollouts.folder import PHASES, TEXTS, PhaseManifest, attempt_of


class RolloutLine(BaseModel, extra="allow"):
    """What a line of metrics.jsonl has for a rollout, beside its step."""

    rollout: Annotated[int, Field(ge=0)]
    reward: FiniteFloat | None = None
    kl: FiniteFloat | None = None
    length: FiniteFloat | None = None


class Reply(BaseModel):
    """A line of replies.jsonl."""

    row: str
    number: int
    reply: str
    finished: bool
    scores: list[float | None]
    drawn_by: str = "policy"
    reward: float | None = None
    """The weighted sum that is learnt from, before any normalization; None for a draw that is left out."""
    prompt: str | None = None
    """The prompt, in the line of its first draw."""


def rollout_of(lines: Sequence[dict[str, Any]], step: int | None, where: Path) -> tuple[int, dict[str, Any]]:
    """Return the number of the rollout that a step learnt from, and its line of metrics.jsonl.

    Args:
        lines: The lines of metrics.jsonl.
        step: The step, from 1; None for the last.
        where: The run folder, for a message.

    Raises:
        UserError: The run has no rollouts, or none of that step; or a line of a rollout is damaged.
    """
    found = [line for line in lines if line["kind"] == "rollout"]
    for line in found:
        validated(line, where / "metrics.jsonl", RolloutLine)
    last = max((line["step"] for line in lines if line["kind"] == "train"), default=0)
    if not found:
        raise UserError("the run has no rollouts", where=str(where), expected="a run with a section `rollout`")
    before = [line for line in found if step is None or line["step"] <= step]
    if not before or (step is not None and step > last):
        raise UserError(f"no step {step}", where=str(where), expected=f"a step from 1 to {last}")
    return before[-1]["rollout"], before[-1]


def replies_of(folder: Path, rollout: int) -> list[dict[str, Any]]:
    """Return the draws of a rollout in the order of prompts, with advantages if there are any.

    Draws of all attempts are there; those that are learnt from have an advantage.

    Raises:
        UserError: The rollout is not there, or damaged.
    """
    root = folder / "rollouts" / f"{rollout:06d}"
    found: list[dict[str, Any]] = []
    for attempt in count():
        folder = root / attempt_of("judged", attempt)
        if attempt and not folder.exists():
            break
        if read_verified(folder, PhaseManifest) is None:
            raise UserError("the rollout is not there, or damaged", where=str(folder))
        found += [{"reward": None} | line for line in read_json_lines(folder / TEXTS, Reply)]
    if read_verified(root / "scored", PhaseManifest) is not None:
        arrays = mmap_safetensors(root / "scored" / PHASES["scored"])
        advantage, each = arrays.get("advantage"), 1 + max(line["number"] for line in found)
        if advantage is None or advantage.ndim != 2 or advantage.shape[1] != each:
            return found
        prompts = arrays.get("learnt", np.arange(len(advantage)))
        if len(prompts) == len(advantage) and set(prompts.tolist()) <= set(range(len(found) // each)):
            for prompt, own in zip(prompts.tolist(), advantage.tolist(), strict=True):
                for number, value in enumerate(own):
                    found[prompt * each + number]["advantage"] = value
    return found
