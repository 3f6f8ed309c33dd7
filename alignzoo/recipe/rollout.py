"""The section `rollout`: draws from the policy during training, and their rewards."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from alignzoo.interfaces.component import NoEffect, Spelling, Strict
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.components import ComponentBuilder, as_list, as_node
from alignzoo.recipe.pydantic_errors import problems_of

LEAST_TEMPERATURE, LEAST_TOP_P = 1e-3, 1e-6
"""Bounds of draws. Below them the probabilities are rounded to nothing."""


class Reward(Strict):
    """A judge whose scores are rewards.

    In a recipe its fields stand beside those of the judge.
    """

    judge: SerializeAsAny[Judge]
    weight: float = Field(1.0, ge=-1e6, le=1e6, description="factor in the sum of the rewards")
    clip: float | None = Field(None, gt=0, description="limit of the score's absolute value; null: none")
    normalize: Literal["group", "rollout"] | None = Field(
        None, description="after the clip, minus the mean over the standard deviation, of the prompt's draws or of all"
    )

    def to_recipe(self, spelling: Spelling | None = None) -> dict[str, Any]:
        """Return the reward as a recipe writes it."""
        return {**self.judge.to_recipe(spelling), **self.model_dump(exclude={"judge"})}

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that the reward depends on, as plain JSON values."""
        own = self.model_dump(
            exclude={"judge"} if self.normalize else {"judge", "normalize"}
        )  # as before there was one
        return {"judge": self.judge.fingerprint(), **own}


class RolloutConfig(Strict):
    """Draws from the policy during training: scored completions of training prompts.

    They are made into training rows. With this section the data's own completions are not trained on.
    """

    completions: int = Field(8, ge=1, le=4096, description="completions drawn for each prompt")
    temperature: float = Field(
        1.0, ge=LEAST_TEMPERATURE, description="temperature of the draws; objectives on groups are scored at it"
    )
    top_p: float = Field(
        1.0, ge=LEAST_TOP_P, le=1, description="draw from the likeliest tokens with this share of the mass"
    )
    max_new_tokens: int = Field(48, ge=1, description="limit of a completion, in tokens")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="strings that end a completion; it keeps their tokens, and its text is without"
    )
    end_tokens: tuple[str, ...] = Field(
        (),
        description="tokens that end a completion besides the model's own end-of-sequence tokens, such as <|im_end|>",
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
    unfinished: Literal["keep", "penalty", "drop"] = Field(
        "keep", description="draws that max_new_tokens has cut: as they are, with less reward, or left out"
    )
    penalty: float = Field(1.0, gt=0, description="taken from the reward of a cut draw with unfinished: penalty")
    missing: Literal["stop", "drop"] = Field(
        "stop", description="draws that no judge has scored: an error, or left out"
    )
    batch_tokens: Annotated[int, NoEffect] = Field(
        16_384, ge=1,
        description="most tokens of a batch of draws, prompts and completions together; changes speed and memory, not "
        "the draws",
    )  # fmt: skip
    kl_rows: int = Field(32, ge=0, description="draws of a rollout on which the exact KL divergence is measured")
    held_out_prompts: int = Field(64, ge=0, description="held-out prompts that an evaluation draws a completion of")


FIELDS = tuple(name for name in Reward.model_fields if name != "judge")
"""Keys of a reward beside those of its judge."""


def build_rewards(given: Any, builder: ComponentBuilder) -> tuple[Reward, ...]:
    """Return the rewards of a list of names or nodes, without those that have a problem."""
    at = ("rollout", "rewards")
    items = as_list(given)
    if not isinstance(items, list):
        builder.problems.add(at, "not a list", "a list of judges")
        return ()
    if not items:
        builder.problems.add(at, "an empty list", "at least one judge")
    found = []
    for i, item in enumerate(map(as_node, items)):
        own = {key: item.pop(key) for key in FIELDS if isinstance(item, dict) and key in item}
        judge = builder.build(item, (*at, str(i)), "judge", FIELDS)
        if judge is None:
            continue
        try:
            found.append(Reward(judge=judge, **own))
        except ValidationError as error:
            builder.problems.extend(problems_of(error, builder.problems.node, (*at, str(i)), Reward))
            continue
    if found and not any(reward.weight for reward in found):
        builder.problems.add(at, "every weight is 0", "at least one reward that counts")
    return tuple(found)
