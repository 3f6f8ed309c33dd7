"""Rewards of draws: judges with a weight, a limit and a normalization."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from alignzoo.interfaces.component import Spelling, Strict
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.components import ComponentBuilder, as_list, as_node
from alignzoo.recipe.pydantic_errors import problems_of


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


FIELDS = tuple(name for name in Reward.model_fields if name != "judge")
"""Keys of a reward beside those of its judge."""


def build_rewards(given: Any, builder: ComponentBuilder, section: str = "rollout") -> tuple[Reward, ...]:
    """Return the rewards of a list of names or nodes, without those that have a problem."""
    at = (section, "rewards")
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
