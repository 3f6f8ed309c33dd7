"""The base class of modifiers, which change the inputs or the loss of any objective."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import Data, ScoredComponent

if TYPE_CHECKING:
    from torch import Tensor


class Modifier(ScoredComponent):
    """Base class of modifiers: a subclass defines `name` and one of the methods.

    The hook `register_modifiers` returns the class. Override `scored` to change the log-ratio of each completion
    separately, `transform` to change an example as a whole, or `loss` to change the loss. The implicit reward, for
    metrics, is changed by `scored` only.
    """

    data: ClassVar[tuple[Data, ...]] = ("pair", "unpaired", "ranked", "chosen")
    """The data of the objectives that it applies to."""
    changes_log_ratio: ClassVar[bool] = True
    """Set to False if it does not act through the log-ratio. Otherwise it needs an objective that reads one."""

    def incompatible_with(self, objective: Objective) -> str:
        """Return why the modifier has no meaning around an objective, or "" if it has one.

        The objective includes the modifiers inside of this one. `data` and `changes_log_ratio` are checked before.
        """
        return ""

    def scored(self, scored: Scored) -> Scored:
        """Return the completions that the objective sees, usually `scored.with_log_ratio(...)`."""
        return scored

    def transform(self, example: Any, objective: Objective) -> Any:
        """Return the example that the objective reads.

        The default applies `scored` to all completions.
        """
        if isinstance(example, Scored):
            return self.scored(example)
        return replace(example, **{name: self.scored(side) for name, side in example.sides().items()})

    def loss(self, objective: Objective, example: Any) -> Tensor:
        """Return the modified loss of each example, shape (B,)."""
        return objective.loss(self.transform(example, objective))

    @classmethod
    def _contradictions(cls) -> dict[str, bool]:
        own = [getattr(cls, key) is not getattr(Modifier, key) for key in ("scored", "transform", "loss")]
        unchanged = "it changes nothing: override `scored`, `transform` or `loss`"
        return super()._contradictions() | {unchanged: not any(own)}
