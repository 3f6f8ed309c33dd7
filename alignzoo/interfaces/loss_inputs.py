"""Inputs of a loss: unpadded batches of completions scored by policy and reference.

Reading a field that the objective did not declare raises `NotDeclared` with the missing declaration. This module does
not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from alignzoo.interfaces.declared import declared
from alignzoo.interfaces.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scored:
    """Scored completions: tensors of shape (B,), or (B, K) for ranked ones.

    Logarithms are natural. `log_prob` is log pi(y|x), summed over the completion's tokens (EOS included), and `length`
    is their number. Tensors are float32 in a run and float64 in the conformance kit.
    """

    _log_prob: Tensor | None
    length: Tensor
    _ref_log_prob: Tensor | None = None
    _tokens: Tokens | None = None
    _columns: Mapping[str, Tensor] = field(default_factory=dict)
    _scalar: Tensor | None = None
    _log_ratio: Tensor | None = None
    _old_log_prob: Tensor | None = None
    _refs: Mapping[str, Tensor] = field(default_factory=dict)
    _outputs: Mapping[str, Tensor] = field(default_factory=dict)
    _hidden_sum: Tensor | None = None
    _drawn_by: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def old_log_prob(self) -> Tensor:
        """Log-prob under the policy that drew the completion, without gradient.

        Only for `data = "group"`.
        """
        return declared(self._old_log_prob, "the log-prob at the time of drawing", 'data = "group"')

    @property
    def log_prob(self) -> Tensor:
        """Log-prob log pi(y|x) under the policy, with gradient.

        A reward model has none without `language_head`.
        """
        how = 'head = "language_model"`, `language_head = True` or `advantage_reads_log_probs = True'
        return declared(self._log_prob, "a log-prob", how)

    @property
    def ref_log_prob(self) -> Tensor:
        """Log-prob log pi_ref(y|x) under the reference. Needs a `reference`."""
        return declared(self._ref_log_prob, "the reference", 'reference = "sequence"')

    def ref(self, name: str) -> Tensor:
        """Return the log-prob log pi_name(y|x) under a named reference.

        Needs `references = (name,)`.
        """
        return declared(self._refs.get(name), f"the reference {name}", f'references = ("{name}",)')

    @property
    def log_ratio(self) -> Tensor:
        """Log-ratio log pi(y|x) - log pi_ref(y|x).

        DPO's implicit reward is beta times this (paper, section 4). The log-ratio is the sum of the tokens'
        differences, which rounds less than `log_prob - ref_log_prob`, a difference of two large sums. A modifier may
        have replaced it.
        """
        return self._log_ratio if self._log_ratio is not None else self.log_prob - self.ref_log_prob

    @property
    def tokens(self) -> Tokens:
        """The values of each token. Needs `tokens = True`."""
        return declared(self._tokens, "the tokens", "tokens = True")

    @property
    def scalar(self) -> Tensor:
        """The reward model's output, the mean of several, with gradient. Needs `head = "scalar"`."""
        return declared(self._scalar, "the scalar head's output", 'head = "scalar"')

    def output(self, name: str) -> Tensor:
        """Return one of a reward model's outputs, with gradient. Needs `outputs = (name,)`."""
        return declared(self._outputs.get(name), f"the output {name}", f'outputs = ("{name}",)')

    @property
    def tolerance(self) -> Tensor:
        """Rounding error of the log-probs, log-ratios or scalars, in nats, without gradient.

        Two values that differ by no more are tied (`alignzoo.interfaces.ties`).
        """
        from alignzoo.interfaces.ties import tolerance

        found = (self._log_prob, self._ref_log_prob) if self._scalar is None else (self._scalar,)
        return tolerance(*[sums for sums in found if sums is not None])

    def moved(self, by: Tensor) -> Scored:
        """Return the completions with log-probs, log-ratios and scalars raised by `by`.

        `by` has their shape.
        """
        log_ratio = None if self._log_ratio is None else self._log_ratio + by
        log_prob, scalar = (None if value is None else value + by for value in (self._log_prob, self._scalar))
        return replace(self, _log_prob=log_prob, _log_ratio=log_ratio, _scalar=scalar)

    def column(self, name: str) -> Tensor:
        """Return a numeric column of the data; a value of the row is repeated for its completions.

        Needs `columns = (name,)`.
        """
        return declared(self._columns.get(name), f"the column {name}", f'columns = ("{name}",)')

    @property
    def hidden_sum(self) -> Tensor:
        """Sum of the last hidden states that predict scored tokens, (..., d), detached.

        Needs `hidden_sum = True`.
        """
        return declared(self._hidden_sum, "the hidden states", "hidden_sum = True")

    def flag(self, name: str) -> Tensor:
        """Return a column of 0 and 1 as booleans. Needs `flags = (name,)`."""
        return self.column(name) > 0.5

    def drawn_by(self, name: str) -> Tensor:
        """Return True for draws of `name`, such as "reference".

        False for completions of the data. Needs `drawn_by`.
        """
        return declared(self._drawn_by.get(name), f"the draws of the {name}", f'drawn_by = ("policy", "{name}")')

    def with_log_ratio(self, log_ratio: Tensor) -> Scored:
        """Return the completions with another log-ratio, as a modifier does."""
        return replace(self, _log_ratio=log_ratio)

    def ones(self) -> Tensor:
        """Return ones of shape (B,), without gradient."""
        return self.length.new_ones(self.length.shape[:1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Base class of batches of examples."""

    _state: Mapping[str, float] = field(default_factory=dict)
    _uniform: Tensor | None = None

    @property
    def state(self) -> Mapping[str, float]:
        """The objective's state, from `initial_state` and `next_state`."""
        return self._state

    @property
    def uniform(self) -> Tensor:
        """A random number in [0, 1) for each example, shape (B,). Needs `needs_uniform = True`."""
        return declared(self._uniform, "a random number", "needs_uniform = True")

    def sides(self) -> dict[str, Scored]:
        """Return the fields that hold completions, by name."""
        return {}

    def ones(self) -> Tensor:
        """Return ones of shape (B,), without gradient."""
        return next(iter(self.sides().values())).ones()


@dataclass(frozen=True, slots=True)
class Pair(Example):
    """A batch of preferences: `chosen` (the paper's y_w) was preferred to `rejected` (y_l)."""

    chosen: Scored
    rejected: Scored
    _tied: Tensor | None = None

    @property
    def tied(self) -> Tensor:
        """True where neither completion was preferred, shape (B,), bool. Needs `ties = True`."""
        return declared(self._tied, "which pairs are ties", "ties = True")

    @property
    def margin(self) -> Tensor:
        """Difference of the two log-ratios, shape (B,), not scaled by beta: h in the equations."""
        return self.chosen.log_ratio - self.rejected.log_ratio

    @property
    def tolerance(self) -> Tensor:
        """Rounding error of the margin in nats, shape (B,), without gradient."""
        return self.chosen.tolerance.maximum(self.rejected.tolerance)

    def column(self, name: str) -> Tensor:
        """Return a numeric column of the row, shape (B,). Needs `columns = (name,)`."""
        return self.chosen.column(name)

    def flag(self, name: str) -> Tensor:
        """Return a column of 0 and 1 of the row as booleans, shape (B,). Needs `flags = (name,)`."""
        return self.chosen.flag(name)

    def with_sides(self, chosen: Scored, rejected: Scored) -> Pair:
        """Return the pairs with other completions, as a modifier does."""
        return replace(self, chosen=chosen, rejected=rejected)

    def swapped(self) -> Pair:
        """Return the pairs with flipped labels.

        Columns stay with the labels, as if an annotator had erred.
        """
        chosen = replace(self.rejected, _columns=self.chosen._columns)
        rejected = replace(self.chosen, _columns=self.rejected._columns)
        return replace(self, chosen=chosen, rejected=rejected)

    def sides(self) -> dict[str, Scored]:
        """Return both completions by name."""
        return {"chosen": self.chosen, "rejected": self.rejected}


@dataclass(frozen=True, slots=True)
class Unpaired(Example):
    """A batch of single completions, each labeled desirable or undesirable."""

    completion: Scored
    desirable: Tensor
    """Shape (B,), bool."""
    _mismatched: Scored | None = None

    @property
    def mismatched(self) -> Scored:
        """Each prompt with the completion of another row, shape (B,). Needs `mismatched = True`."""
        return declared(self._mismatched, "the mismatched completions", "mismatched = True")

    def sides(self) -> dict[str, Scored]:
        """Return the completion, and the mismatched one if there is one, by name."""
        return {"completion": self.completion} | ({"_mismatched": self._mismatched} if self._mismatched else {})


@dataclass(frozen=True, slots=True)
class Ranked(Example):
    """A batch of lists of K completions, best first; fields of `completions` are (B, K)."""

    completions: Scored
    _places: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """Rank of each completion in the data, (B, K) int64, from 0 for the best.

        Equal scores share a rank.
        """
        if self._places is not None:
            return self._places
        length = self.completions.length
        return length.new_ones(length.shape).cumsum(1).long() - 1

    def sides(self) -> dict[str, Scored]:
        """Return all completions by name."""
        return {"completions": self.completions}
