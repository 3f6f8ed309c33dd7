"""A target margin between the implicit rewards."""

from __future__ import annotations

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Field, Objective
from alignzoo.objectives.composition import Modified


class Margin(Modifier):
    """A target margin between the implicit rewards of both completions of a pair.

    The implicit reward is beta times the log-ratio; an objective without a beta counts as beta = 1.
    """

    name = "margin"
    source = "Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2, on DPO's implicit rewards"
    equation = "h - m / beta in place of h: half taken from the chosen log-ratio, half given to the rejected one"
    data = ("pair",)
    reference = "sequence"

    value: float = Field(1.0, gt=0, description="the margin m, in units of the implicit reward")

    def incompatible_with(self, objective: Objective) -> str:
        """Return an error if the margin would not be in units of the implicit reward."""
        if isinstance(objective, Modified):
            return f"margin must be the first modifier: {objective.modifiers[-1].name} would change the margin"
        if type(objective).implicit_reward is not Objective.implicit_reward:
            return f"margin moves beta times the log-ratio, and {objective.name} has another implicit reward"
        return ""

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """Lower the pair's chosen log-ratio and raise the rejected one, by m / (2 beta)."""
        half = self.value / getattr(objective, "beta", 1.0) / 2
        chosen, rejected = example.chosen, example.rejected
        return example.with_sides(
            chosen.with_log_ratio(chosen.log_ratio - half), rejected.with_log_ratio(rejected.log_ratio + half)
        )
