"""The judge of the toy data."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.interfaces.judge import Judge, Prompt


class ToyJudge(Judge):
    """Score a reply from -1 to 1 by the grammar of the toy data, which is ground truth.

    Prompts of other data have no score.
    """

    name = "toy"
    source = "the grammar that generated the sample (alignzoo.data.toy)"

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Sequence[float]:
        """Return scores from -1 (worst) to 1; 0 without known content, nan for other prompts."""
        from alignzoo.data.toy.ground_truth import ground_truth_reward, subject

        return [
            ground_truth_reward(prompt, reply) if isinstance(prompt, str) and subject(prompt) else float("nan")
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
