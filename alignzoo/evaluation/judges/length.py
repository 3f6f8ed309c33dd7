"""A judge of length: the length itself, or a soft limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from alignzoo.interfaces.judge import Judge, Prompt


class Length(Judge):
    """Score a reply by its length, or by how far it is over a soft limit.

    Without `limit` the score is the length; a negative weight then rewards short replies. With it the score is 0 up to
    `limit - buffer`, falls linearly to -1 at `limit`, and is -1 beyond: the soft overlong punishment of DAPO.
    """

    name = "length"
    source = "soft overlong punishment: Yu et al. 2025 (DAPO, arXiv:2503.14476), equation 13"

    unit: Literal["tokens", "words", "characters"] = Field(
        "words", description="what is counted; tokens are known of draws alone, the end-of-sequence token included"
    )
    limit: int | None = Field(None, ge=1, description="length with a score of -1; null: the score is the length")
    buffer: int = Field(0, ge=0, description="lengths below the limit over which the score falls from 0")

    @model_validator(mode="after")
    def _buffer_within(self) -> Self:
        if self.buffer > (self.limit or 0):
            raise ValueError("buffer needs a limit that is at least as large")
        return self

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], tokens: Sequence[Sequence[int]] = ()
    ) -> list[float]:
        """Return a score for each reply.

        Raises:
            ValueError: The unit is tokens, and those of the replies are not known.
        """
        if self.unit == "tokens" and len(tokens) < len(replies):
            raise ValueError("unit: tokens is known of draws alone; words and characters are known of any reply")
        of = {"tokens": tokens, "characters": replies, "words": [reply.split() for reply in replies]}[self.unit]
        return [self._score(len(one)) for one in of]

    def _score(self, length: int) -> float:
        if self.limit is None:
            return float(length)
        if length > self.limit:
            return -1.0
        return 0.0 - max(0, length - (self.limit - self.buffer)) / self.buffer if self.buffer else 0.0
