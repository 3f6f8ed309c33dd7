"""Base class of metrics, reported as mean and standard error over held-out examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import Data, Head, ReferenceKind, Requirements, ScoredComponent

if TYPE_CHECKING:
    from torch import Tensor


class Metric(ScoredComponent):
    """Base class of metrics: a subclass defines `name` and `values`.

    The hook `register_metrics` returns the class. A recipe names it under `eval.metrics`. It declares its inputs as an
    objective does and sees the same fields.
    """

    reference: ClassVar[ReferenceKind] = "none"
    """`none`, `sequence` or `token`. If the objective has a live or moving reference, that one is used."""
    data: ClassVar[Data] = "pair"
    """The type of the example, as for an objective."""
    head: ClassVar[Head] = "language_model"
    """The head that the policy must have."""
    mismatched: ClassVar[bool] = False

    def values(self, example: Any, objective: Objective) -> Tensor:
        """Return a number for each held-out example, shape (B,); NaN where there is none.

        The numbers have no gradient.

        Args:
            example: what `data` declares.
            objective: the run's objective, or the first term of a sum. Its `implicit_reward` is the implicit reward.
        """
        raise NotImplementedError(f"{type(self).__name__} has no values")

    @property
    def requirements(self) -> Requirements:
        """The declarations as one value."""
        return replace(super().requirements, mismatched=self.mismatched, data=self.data, head=self.head)

    @classmethod
    def _contradictions(cls) -> dict[str, bool]:
        live = cls.reference in ("live", "moving")
        return super()._contradictions() | {'a metric\'s reference is "none", "sequence" or "token"': live}
