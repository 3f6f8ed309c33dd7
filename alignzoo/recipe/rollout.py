"""The section `rollout`: draws from the policy during training, and their rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.rewards import Reward
from alignzoo.recipe.sampling import LEAST_TEMPERATURE


class RolloutConfig(DrawConfig):
    """Draws from the policy during training: scored completions of training prompts.

    They are made into training rows. With this section the data's own completions are not trained on.
    """

    temperature: float = Field(
        1.0, ge=LEAST_TEMPERATURE, description="temperature of the draws; objectives on groups are scored at it"
    )
    prompts: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None,
        description="prompts of a rollout, a multiple of train.batch_size; null: train.batch_size; all: those of the "
        "run, so that every completion is of the start",
    )
    epochs: int = Field(1, ge=1, description="passes over the prompts of a rollout")
    max_attempts: int = Field(
        1, ge=1, le=1000,
        description="attempts to fill a rollout with prompts whose draws differ in reward; others are left out; "
        "1: every prompt is kept",
    )  # fmt: skip
    pairs: Literal["extremes", "adjacent", "all", "data"] | None = Field(
        None,
        description="pairs of draws with different rewards, for objectives on pairs; data: the row's own best "
        "completion is preferred to each draw; null: extremes",
    )
    reference: Literal["start", "rollout"] = Field(
        "start", description="the policy before its first step, or the one that has drawn the rollout"
    )
    labels: float | Literal["mean"] | None = Field(
        None, description="draws with a higher reward are desirable, for objectives on labels; null: mean, the prompt's"
    )
    rewards: tuple[Reward, ...] = Field(
        (),
        description="judges whose scores are rewards, with their weights; needed unless pairs: data, or completions: 1 "
        "with an objective on chosen completions",
    )
    kl_rows: int = Field(32, ge=0, description="draws of a rollout on which the exact KL divergence is measured")
    held_out_prompts: int = Field(64, ge=0, description="held-out prompts that an evaluation draws a completion of")
