"""What the papers' formulas are written in: completions in plain numbers, and the arithmetic that `math` lacks.

y_w was preferred to y_l; r(y) is the log-ratio log pi(y|x) - log pi_ref(y|x), summed over tokens; h = r(y_w) - r(y_l).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Completion:
    """What is known of one completion: a number a token, and some of its own."""

    tokens: tuple[float, ...]
    """log pi of each token."""
    ref_tokens: tuple[float, ...]
    log_collision_prob: tuple[float, ...] = ()
    """log sum_v pi(v)^2 at each token."""
    forward_kl: tuple[float, ...] = ()
    """KL(pi_ref || pi) at each token."""
    ref_normalized_entropy: tuple[float, ...] = ()
    """Entropy of pi_ref at each token, over log V."""
    uniform: tuple[float, ...] = ()
    score: float = 0.0
    margin: float = 0.0
    other_score: float = 0.0
    """Another model's reward."""
    win_rate: float = 0.5
    quantile: float = 0.5
    safe: float = 1.0
    scalar: float = 0.0
    """A reward model's output."""
    outputs: Mapping[str, float] = field(default_factory=dict)
    """A reward model's further outputs."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Further numbers of the data."""
    refs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """log-prob of each token under each named reference."""

    @property
    def n(self) -> int:
        return len(self.tokens)

    @property
    def logp(self) -> float:
        return math.fsum(self.tokens)

    @property
    def ref_logp(self) -> float:
        return math.fsum(self.ref_tokens)

    @property
    def r(self) -> float:
        return self.logp - self.ref_logp

    @property
    def mean(self) -> float:
        """Mean log-prob: log pi(y|x) / |y|."""
        return self.logp / self.n

    @property
    def ratios(self) -> list[float]:
        return [own - ref for own, ref in zip(self.tokens, self.ref_tokens, strict=True)]


@dataclass(frozen=True)
class Pair:
    chosen: Completion
    rejected: Completion
    tied: bool = False
    """For objectives that take ties."""


@dataclass(frozen=True)
class Single:
    """Unpaired data; `mismatched` is the same prompt with another row's completion."""

    completion: Completion
    desirable: bool
    mismatched: Completion


Ranked = tuple[Completion, ...]  # the best first
Formula = Callable[..., list[float]]

FORMULAS: dict[str, Formula] = {}
"""By the objective's name: (rows, state, **fields) to the loss of each example of the batch."""


def batch(function: Formula) -> Formula:
    """A loss of the whole batch: called with its rows."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: function(rows, **_state(function, state), **fields)
    return function


def pair(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one pair: called with y_w and y_l."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [
        function(row.chosen, row.rejected, **fields) for row in rows
    ]
    return function


def tied(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one pair that may be a tie: called with y_w and y_l, and whether it is one."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [
        function(row.chosen, row.rejected, row.tied, **fields) for row in rows
    ]
    return function


def ranked(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one list: called with its completions."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [function(row, **fields) for row in rows]
    return function


def single(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one completion: called with it and whether it is desirable."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [
        function(row.completion, row.desirable, **fields) for row in rows
    ]
    return function


def _state(function: Callable, state: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": state} if "state" in function.__code__.co_varnames else {}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def log_sum_exp(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def softmax(values: Sequence[float]) -> list[float]:
    return [math.exp(value - log_sum_exp(values)) for value in values]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
