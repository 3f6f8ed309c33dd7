"""What an objective sees: completions scored by policy and reference, batched, without padding.

Every field that must be declared raises `NotDeclared`, with the missing declaration, when it was not. torch is not
imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class NotDeclared(AttributeError):
    """An objective read something that it did not declare."""


def _declared(value: Any, what: str, how: str) -> Any:
    if value is None:
        raise NotDeclared(f"{what} can't be read without being declared: write `{how}` in the class")
    return value


@dataclass(frozen=True, slots=True)
class Tokens:
    """The scored tokens of a batch of completions one after the other, N in all: every tensor has shape (N,).

    Nothing is padded: `sum` and `mean` go from tokens to completions, `spread` from completions to tokens.
    """

    log_prob: Tensor
    """log pi of each token given what is before it, under the policy, with gradient."""
    sequence: Tensor
    """Which completion the token belongs to, int64, in the (flattened) order of the batch."""
    position: Tensor
    """Its place among the scored tokens of its completion, int64, from 0."""
    shape: tuple[int, ...]
    """Of the batch of completions: (B,), or (B, K) for ranked ones."""
    _ref_log_prob: Tensor | None = None
    _statistics: Mapping[str, Tensor] = field(default_factory=dict)
    _uniform: Tensor | None = None

    @property
    def ref_log_prob(self) -> Tensor:
        """log pi_ref of each token. Needs `reference = "token"`, "live" or "moving"."""
        return _declared(self._ref_log_prob, "the reference's token log-probs", 'reference = "token"')

    @property
    def log_ratio(self) -> Tensor:
        """log pi - log pi_ref of each token."""
        return self.log_prob - self.ref_log_prob

    @property
    def entropy(self) -> Tensor:
        """Of the policy's distribution at each token, in nats. Needs `statistics = ("entropy",)`."""
        return self._statistic("entropy")

    @property
    def log_collision_prob(self) -> Tensor:
        """log sum_v pi(v)^2 of the policy's distribution at each token.

        Needs `statistics = ("log_collision_prob",)`.
        """
        return self._statistic("log_collision_prob")

    @property
    def kl(self) -> Tensor:
        """KL(pi_ref || pi) of the two distributions at each token, in nats, with gradient. Needs `statistics =
        ("kl",)` and `reference = "live"`."""
        return self._statistic("kl")

    @property
    def uniform(self) -> Tensor:
        """A number in [0, 1) of each token's own: the same for every micro-batch size. Needs `needs_uniform = True`."""
        return _declared(self._uniform, "a random number", "needs_uniform = True")

    def _statistic(self, name: str) -> Tensor:
        return _declared(self._statistics.get(name), f"the statistic {name}", f'statistics = ("{name}",)')

    def sum(self, values: Tensor) -> Tensor:
        """(N,) to one number a completion, in `shape`: the sum over its tokens."""
        from torch import segment_reduce

        lengths = self.sequence.bincount(minlength=math.prod(self.shape))
        return segment_reduce(values, "sum", lengths=lengths).reshape(self.shape)

    def mean(self, values: Tensor) -> Tensor:
        """(N,) to one number a completion: the mean over its tokens."""
        return self.sum(values) / self.sum(values.new_ones(values.shape))

    def rank(self, values: Tensor) -> Tensor:
        """(N,) to (N,) int64: how many tokens of the same completion have a smaller value."""
        order = values.argsort(stable=True)
        order = order[self.sequence[order].argsort(stable=True)]  # by completion, and within it by value
        rank = order.new_empty(order.shape)
        rank[order] = self.position  # positions count from 0 within each completion, in the same order of completions
        return rank

    def spread(self, values: Tensor) -> Tensor:
        """One number a completion, in `shape`, to its tokens: (N,)."""
        return values.reshape(-1)[self.sequence]


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions, scored: tensors of shape (B,) (ranked: (B, K)), float32 (float64 in tests), natural logarithms.

    `log_prob` is log pi(y|x), summed over the completion's tokens (EOS included), and `length` counts them.
    """

    _log_prob: Tensor | None
    length: Tensor
    _ref_log_prob: Tensor | None = None
    _tokens: Tokens | None = None
    _columns: Mapping[str, Tensor] = field(default_factory=dict)
    _scalar: Tensor | None = None
    _log_ratio: Tensor | None = None

    @property
    def log_prob(self) -> Tensor:
        """log pi(y|x) under the policy, with gradient. A reward model (`head = "scalar"`) has none."""
        return _declared(self._log_prob, "a log-prob", 'head = "language_model"')

    @property
    def ref_log_prob(self) -> Tensor:
        """log pi_ref(y|x). Needs a `reference`."""
        return _declared(self._ref_log_prob, "the reference", 'reference = "sequence"')

    @property
    def log_ratio(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x): DPO's implicit reward is beta times this (paper, section 4).

        The sum of the tokens' differences, whose rounding is that of small numbers; `log_prob - ref_log_prob` is the
        difference of two large sums. A modifier may have put something else in its place.
        """
        return self._log_ratio if self._log_ratio is not None else self.log_prob - self.ref_log_prob

    @property
    def tokens(self) -> Tokens:
        """What is known of each token. Needs `tokens = True`."""
        return _declared(self._tokens, "the tokens", "tokens = True")

    @property
    def scalar(self) -> Tensor:
        """The reward model's output, with gradient. Needs `head = "scalar"`."""
        return _declared(self._scalar, "the scalar head's output", 'head = "scalar"')

    @property
    def tolerance(self) -> Tensor:
        """Rounding of a log-prob, a log-ratio or a scalar of these completions, in nats: two that differ by no more
        are tied (`alignzoo.interfaces.ties`). No gradient."""
        from alignzoo.interfaces.ties import tolerance

        return tolerance(*[sums for sums in (self._log_prob, self._ref_log_prob, self._scalar) if sums is not None])

    def moved(self, by: Tensor) -> Scored:
        """The same completions with log-probs, log-ratios and scalars `by` higher."""
        log_ratio = None if self._log_ratio is None else self._log_ratio + by
        log_prob, scalar = (None if value is None else value + by for value in (self._log_prob, self._scalar))
        return replace(self, _log_prob=log_prob, _log_ratio=log_ratio, _scalar=scalar)

    def column(self, name: str) -> Tensor:
        """A number that came with the data. Needs `columns = (name,)`; a number of the row is its completions' too."""
        return _declared(self._columns.get(name), f"the column {name}", f'columns = ("{name}",)')

    def with_log_ratio(self, log_ratio: Tensor) -> Scored:
        """The same completions with another log-ratio: what a modifier returns."""
        return replace(self, _log_ratio=log_ratio)

    def ones(self) -> Tensor:
        """A one for each example, shape (B,), without gradient."""
        return self.length.new_ones(self.length.shape[:1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What all batches of examples have."""

    _state: Mapping[str, float] = field(default_factory=dict)
    _uniform: Tensor | None = None

    @property
    def state(self) -> Mapping[str, float]:
        """What `initial_state` and `next_state` returned."""
        return self._state

    @property
    def uniform(self) -> Tensor:
        """A number in [0, 1) for each example, shape (B,). Needs `needs_uniform = True`."""
        return _declared(self._uniform, "a random number", "needs_uniform = True")

    def sides(self) -> dict[str, Scored]:
        """The fields that hold completions."""
        return {}

    def ones(self) -> Tensor:
        """A one for each example, shape (B,), without gradient."""
        return next(iter(self.sides().values())).ones()


@dataclass(frozen=True, slots=True)
class Pair(Example):
    """A batch of preference pairs: `chosen` (the paper's y_w) was preferred to `rejected` (y_l)."""

    chosen: Scored
    rejected: Scored

    @property
    def margin(self) -> Tensor:
        """Difference of the two log-ratios, shape (B,): the h of most papers, before beta."""
        return self.chosen.log_ratio - self.rejected.log_ratio

    @property
    def tolerance(self) -> Tensor:
        """Rounding of the margin in nats, shape (B,), without gradient: that of the larger of its two sums."""
        return self.chosen.tolerance.maximum(self.rejected.tolerance)

    def column(self, name: str) -> Tensor:
        """A number of the row, shape (B,). Needs `columns = (name,)`."""
        return self.chosen.column(name)

    def with_sides(self, chosen: Scored, rejected: Scored) -> Pair:
        """The same pairs with other completions: what a modifier returns."""
        return replace(self, chosen=chosen, rejected=rejected)

    def swapped(self) -> Pair:
        """The same pairs with their labels flipped, as a mistaken annotator gives them: the data's numbers stay."""
        chosen = replace(self.rejected, _columns=self.chosen._columns)
        rejected = replace(self.chosen, _columns=self.rejected._columns)
        return replace(self, chosen=chosen, rejected=rejected)

    def sides(self) -> dict[str, Scored]:
        """Both."""
        return {"chosen": self.chosen, "rejected": self.rejected}


@dataclass(frozen=True, slots=True)
class Unpaired(Example):
    """A batch of single completions, each labeled desirable or not."""

    completion: Scored
    desirable: Tensor
    """Shape (B,), bool."""
    _mismatched: Scored | None = None

    @property
    def mismatched(self) -> Scored:
        """Every prompt with the completion of another row, shape (B,). Needs `mismatched = True`."""
        return _declared(self._mismatched, "the mismatched completions", "mismatched = True")

    def sides(self) -> dict[str, Scored]:
        """The completion, and the mismatched one where there is one."""
        return {"completion": self.completion} | ({"_mismatched": self._mismatched} if self._mismatched else {})


@dataclass(frozen=True, slots=True)
class Ranked(Example):
    """A batch of lists of K completions, the best one first: the fields of `completions` have shape (B, K)."""

    completions: Scored
    _places: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """Rank of each completion by the data, int64, shape (B, K), from 0 for the best; equal scores share a rank."""
        if self._places is not None:
            return self._places
        length = self.completions.length
        return length.new_ones(length.shape).cumsum(1).long() - 1

    def sides(self) -> dict[str, Scored]:
        """All of them."""
        return {"completions": self.completions}
