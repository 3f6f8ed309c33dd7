"""The section `draw`: a data set of completions that a model writes, scored by judges.

A recipe has it in place of `objective`. Its run is a data set, which other recipes read with `data: {from: RECIPE}`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignzoo.interfaces.component import NoEffect, Strict
from alignzoo.recipe.rewards import Reward
from alignzoo.recipe.sampling import LEAST_TEMPERATURE, LEAST_TOP_P


class DrawConfig(Strict):
    """Completions drawn from a model for each prompt, and their rewards."""

    completions: int = Field(8, ge=1, le=4096, description="completions drawn for each prompt")
    temperature: float = Field(1.0, ge=LEAST_TEMPERATURE, description="temperature of the draws")
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
    rewards: tuple[Reward, ...] = Field(
        (), description="judges whose scores are rewards, with their weights; needed unless completions: 1"
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
