"""What an objective is, and what it sees.

An objective is pure math over log-probabilities: it never sees padding, masks, devices or ranks. It declares what it
needs in class attributes, the engine provides that and no more, and touching anything else is an error that says which
declaration is missing. torch is not imported here, so that a recipe can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Field", "NotDeclared", "Objective", "Pair", "Scored"]


class NotDeclared(AttributeError):
    """An objective read something that it did not declare."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One completion of each example, scored: tensors of shape (B,), float32 (float64 in tests), natural logarithms.

    `log_prob` is log pi(y|x) under the policy, summed over the completion's tokens (EOS included); it carries the
    gradient. `ref_log_prob` is the same under the reference, without gradient. `length` counts the summed tokens.
    """

    log_prob: Tensor
    length: Tensor
    _ref_log_prob: Tensor | None = None

    @property
    def ref_log_prob(self) -> Tensor:
        """log pi_ref(y|x), shape (B,). Needs `reference = "sequence"`."""
        if self._ref_log_prob is None:
            raise NotDeclared('the reference was read but not declared: write `reference = "sequence"` in the class')
        return self._ref_log_prob

    @property
    def log_ratio(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x), shape (B,): DPO's implicit reward is beta times this (paper, section 4)."""
        return self.log_prob - self.ref_log_prob


@dataclass(frozen=True, slots=True)
class Pair:
    """A batch of preference pairs: `chosen` (the paper's y_w) was preferred to `rejected` (y_l)."""

    chosen: Scored
    rejected: Scored

    @property
    def margin(self) -> Tensor:
        """Difference of the two log-ratios, shape (B,): the h of most papers, before beta."""
        return self.chosen.log_ratio - self.rejected.log_ratio


class Objective(BaseModel):
    """Base class: subclass it, give it a `name` and `loss`, and return it from `register_objectives`.

    Hyper-parameters are pydantic fields with bounds and descriptions; a recipe's `objective:` node is validated
    against them. The docstring's first line says what the objective is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    """How a recipe calls it: lower case letters, digits and underscores."""
    source: ClassVar[str] = ""
    """Where it was published: authors, year, arXiv id, equation."""
    equation: ClassVar[str] = ""
    """The loss of one example in plain text; h is the difference of the log-ratios."""
    data: ClassVar[Literal["pair", "chosen"]] = "pair"
    """`pair`: `loss` gets a `Pair`. `chosen`: it gets the chosen completions alone, a `Scored`."""
    reference: ClassVar[Literal["none", "sequence"]] = "sequence"
    """`sequence`: log-probs of whole completions under the frozen reference, from the cache. `none`: not computed."""

    def loss(self, example: Any) -> Tensor:
        """The loss of each example, shape (B,). `example` is a `Pair` or a `Scored`, as `data` says."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def weight(self, example: Any) -> Tensor:
        """What each example counts for, shape (B,). A step minimises sum(loss) / sum(weight) over the global batch.

        One for every example unless overridden: a mean over examples. SFT returns the token counts: a mean over tokens.
        """
        scored = example.chosen if isinstance(example, Pair) else example
        return scored.log_prob.detach().new_ones(scored.log_prob.shape)

    def reward(self, scored: Scored) -> Tensor:
        """The implicit reward of a completion, shape (B,), for metrics alone: beta times its log-ratio.

        Without a reference it is beta times the log-probability. An objective with no beta counts as beta = 1.
        """
        beta = getattr(self, "beta", 1.0)
        return beta * (scored.log_prob if self.reference == "none" else scored.log_ratio)
