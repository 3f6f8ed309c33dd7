"""What a metric is: a number of each held-out example, of which the mean and its standard error are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.interfaces.objective import Data, Head, Objective, ReferenceKind, Requirements

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Requirements):
    """Base class: subclass it, give it a `name` and `values`, and return it from `register_metrics`.

    It declares what it needs as an objective does, and sees the same fields; a recipe names it under `eval.metrics`.
    """

    reference: ClassVar[ReferenceKind] = "none"
    """`none`, `sequence` or `token`. Where the objective has a live or moving reference, it is that one."""
    data: ClassVar[Data] = "pair"
    """What `values` gets, as for an objective."""
    head: ClassVar[Head] = "language_model"
    """The head that the policy must have."""
    mismatched: ClassVar[bool] = False

    def values(self, example: Any, objective: Objective) -> Tensor:
        """The number of each held-out example, shape (B,), without gradient; not-a-number where there is none.

        `objective` is the run's (the first term of a sum): its `reward` is the implicit one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no values")

    @classmethod
    def _impossible(cls) -> dict[str, bool]:
        live = cls.reference in ("live", "moving")
        return super()._impossible() | {'a metric\'s reference is "none", "sequence" or "token"': live}
