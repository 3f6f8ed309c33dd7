"""The scored tokens of a batch of completions, for losses on tokens.

This module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignzoo.interfaces.declared import declared

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """The N scored tokens of a batch of completions, concatenated: tensors of shape (N,).

    A completion with several scored spans, such as the assistant's turns between tool results, contributes the tokens
    of all of them, one span after the other. The tokens between spans are read by the model and are not here.

    There is no padding: `sum` and `mean` reduce tokens to completions, `spread` broadcasts completions to tokens.
    """

    log_prob: Tensor
    """log pi of each token given the tokens before it, under the policy, with gradient."""
    sequence: Tensor
    """Index of the token's completion in the flattened batch, int64."""
    position: Tensor
    """Index of the token among the scored tokens of its completion, int64."""
    shape: tuple[int, ...]
    """Shape of the batch of completions: (B,), or (B, K) for ranked ones."""
    _ref_log_prob: Tensor | None = None
    _statistics: Mapping[str, Tensor] = field(default_factory=dict)
    _uniform: Tensor | None = None
    _old_log_prob: Tensor | None = None
    _refs: Mapping[str, Tensor] = field(default_factory=dict)
    _value: Tensor | None = None
    _old_value: Tensor | None = None

    @property
    def old_log_prob(self) -> Tensor:
        """Log-prob of each token under the policy that drew it, without gradient.

        Only for `data = "group"`.
        """
        return declared(self._old_log_prob, "the log-probs at the time of drawing", 'data = "group"')

    @property
    def value(self) -> Tensor:
        """The critic's value before each token is known, with gradient.

        It is read at the slot that predicts the token. Needs `head = "value"`.
        """
        return declared(self._value, "the critic's value", 'head = "value"')

    @property
    def old_value(self) -> Tensor:
        """The critic's value before each token at the time of drawing, without gradient.

        Needs `head = "value"`.
        """
        return declared(self._old_value, "the critic's value at the time of drawing", 'head = "value"')

    @property
    def ref_log_prob(self) -> Tensor:
        """Log-prob of each token under the reference: log pi_ref.

        Needs `reference = "token"`, "live" or "moving".
        """
        return declared(self._ref_log_prob, "the reference's token log-probs", 'reference = "token"')

    @property
    def log_ratio(self) -> Tensor:
        """Log-ratio of each token: log pi - log pi_ref."""
        return self.log_prob - self.ref_log_prob

    def ref(self, name: str) -> Tensor:
        """Return the log-prob of each token under a named reference.

        Needs `references = (name,)`.
        """
        return declared(self._refs.get(name), f"the reference {name}", f'references = ("{name}",)')

    @property
    def entropy(self) -> Tensor:
        """Entropy of the policy's distribution at each token, in nats.

        Needs `statistics = ("entropy",)`.
        """
        return self.statistic("entropy")

    @property
    def log_collision_prob(self) -> Tensor:
        """Log of the collision probability sum_v pi(v)^2 at each token.

        Needs `statistics = ("log_collision_prob",)`.
        """
        return self.statistic("log_collision_prob")

    @property
    def forward_kl(self) -> Tensor:
        """KL(pi_ref || pi) of the two distributions at each token, in nats, with gradient.

        Needs `statistics = ("forward_kl",)`, and a live reference.
        """
        return self.statistic("forward_kl")

    @property
    def reverse_kl(self) -> Tensor:
        """KL(pi || pi_ref) of the two distributions at each token, in nats, with gradient.

        Its sum over a completion drawn from pi estimates the KL divergence of whole completions, without bias and with
        less variance than the log-ratio. Needs `statistics = ("reverse_kl",)` and `reference = "live"`.
        """
        return self.statistic("reverse_kl")

    @property
    def ref_normalized_entropy(self) -> Tensor:
        """Normalized entropy of the reference's distribution at each token, in [0, 1].

        It is the entropy over the log of the vocabulary's size, without gradient.
        Needs `statistics = ("ref_normalized_entropy",)` and `reference = "live"`.
        """
        return self.statistic("ref_normalized_entropy")

    @property
    def uniform(self) -> Tensor:
        """A random number in [0, 1) for each token, independent of micro-batches.

        Needs `needs_uniform = True`.
        """
        return declared(self._uniform, "a random number", "needs_uniform = True")

    def statistic(self, name: str) -> Tensor:
        """Return a statistic of the distributions at each token, with gradient.

        Needs `statistics = (name,)`.
        """
        return declared(self._statistics.get(name), f"the statistic {name}", f'statistics = ("{name}",)')

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over each completion's tokens: (N,) to `shape`."""
        from torch import segment_reduce

        lengths = self.sequence.bincount(minlength=math.prod(self.shape))
        return segment_reduce(values, "sum", lengths=lengths).reshape(self.shape)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over each completion's tokens: (N,) to `shape`."""
        return self.sum(values) / self.sum(values.new_ones(values.shape))

    def rank(self, values: Tensor) -> Tensor:
        """Return the rank of each value within its completion: (N,) to (N,) int64.

        Ranks count from 0, for the smallest value.
        """
        order = values.argsort(stable=True)
        order = order[self.sequence[order].argsort(stable=True)]  # by completion, and within it by value
        rank = order.new_empty(order.shape)
        rank[order] = self.position  # positions count from 0 within each completion, in the same order of completions
        return rank

    def spread(self, values: Tensor) -> Tensor:
        """Repeat one value per completion for each of its tokens: `shape` to (N,)."""
        return values.reshape(-1)[self.sequence]
