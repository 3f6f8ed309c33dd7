"""How replies are sampled for a comparison."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """Replies to held-out prompts of the test split, the same prompts and random streams for every run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: int = Field(128, ge=0, description="how many, evenly spaced over the test split")
    tokens: int = Field(64, ge=1, description="at most so many new tokens a reply")
    temperature: float = Field(1.0, ge=0, description="0 is greedy; the KL is that of the policy only at 1")
    seed: int = Field(0, ge=0, description="of the random streams, one a prompt")
