"""A margin between the rewards."""

from __future__ import annotations

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Field, Objective
from alignzoo.objectives.composition import Modified


class Margin(Modifier):
    """Asks the chosen reward to exceed the rejected one by a margin before they count as equal.

    The reward is beta times the log-ratio (an objective with no beta counts as beta = 1).
    """

    name = "margin"
    source = "Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2, on DPO's implicit rewards"
    equation = "h - m / beta in place of h: half taken from the chosen log-ratio, half given to the rejected one"
    data = ("pair",)
    reference = "sequence"

    value: float = Field(1.0, gt=0, description="the margin m, in units of the implicit reward")

    def incompatible_with(self, objective: Objective) -> str:
        """What stands between the margin and the reward would make another margin of it."""
        if isinstance(objective, Modified):
            return f"margin must be the first modifier: {objective.modifiers[-1].name} would change what it adds"
        if type(objective).implicit_reward is not Objective.implicit_reward:
            return f"margin moves beta times the log-ratio, and {objective.name} has another reward"
        return ""

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """The pair with its log-ratios moved together."""
        half = self.value / getattr(objective, "beta", 1.0) / 2
        chosen, rejected = example.chosen, example.rejected
        return example.with_sides(
            chosen.with_log_ratio(chosen.log_ratio - half), rejected.with_log_ratio(rejected.log_ratio + half)
        )
