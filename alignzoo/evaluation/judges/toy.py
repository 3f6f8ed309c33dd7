"""The embedded sample's judge."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.interfaces.judge import Judge, Prompt


class ToyJudge(Judge):
    """What the embedded sample's own grammar says a reply is worth, from -1 to 1: ground truth, no model's opinion.

    It knows nothing of prompts that are not the sample's.
    """

    name = "toy"
    source = "the grammar that generated the sample (alignzoo.data.toy)"

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Sequence[float]:
        """From -1 (worst) to 1; 0 for a reply that says nothing known, not-a-number for a foreign prompt."""
        from alignzoo.data.toy.ground_truth import ground_truth_reward, subject

        return [
            ground_truth_reward(prompt, reply) if isinstance(prompt, str) and subject(prompt) else float("nan")
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
