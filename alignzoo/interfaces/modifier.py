"""A modifier: a plugin that changes the inputs of any objective built on log-ratios."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Data, Objective, Requirements

if TYPE_CHECKING:
    from torch import Tensor


class Modifier(Requirements):
    """Base class: changes what an objective sees, or its loss. Return it from `register_modifiers`.

    Override `scored` when it changes each completion's log-ratio by itself, `transform` when it needs the whole
    example, and `loss` when it changes the loss. The implicit reward, for metrics, goes through `scored` alone.
    """

    data: ClassVar[tuple[Data, ...]] = ("pair", "unpaired", "ranked", "chosen")
    """What objectives it applies to."""
    changes_log_ratio: ClassVar[bool] = True
    """Whether it works through the log-ratio: an objective that reads none can't be modified by it."""

    def incompatible_with(self, objective: Objective) -> str:
        """Why it has no meaning around an objective (with the modifiers inside of this one), or "". That it takes
        `data`, and reads the log-ratio if that is what changes, is seen to already."""
        return ""

    def scored(self, scored: Scored) -> Scored:
        """The completions as the objective shall see them: usually `scored.with_log_ratio(...)`."""
        return scored

    def transform(self, example: Any, objective: Objective) -> Any:
        """The example as the objective shall see it: every completion through `scored`."""
        if isinstance(example, Scored):
            return self.scored(example)
        return replace(example, **{name: self.scored(side) for name, side in example.sides().items()})

    def loss(self, objective: Objective, example: Any) -> Tensor:
        """The objective's loss of the example, shape (B,), modified."""
        return objective.loss(self.transform(example, objective))

    @classmethod
    def _impossible(cls) -> dict[str, bool]:
        own = [getattr(cls, key) is not getattr(Modifier, key) for key in ("scored", "transform", "loss")]
        return super()._impossible() | {"it changes nothing: override `scored`, `transform` or `loss`": not any(own)}
