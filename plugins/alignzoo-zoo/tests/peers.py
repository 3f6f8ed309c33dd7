"""Our losses beside a peer's, on the log-probs that the peer computed and recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cases import BY_NAME, build
from notation import Completion, Pair, Single

from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.composition import Modified

RECORDS = Path(__file__).parents[3] / "tests" / "objectives"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Relative, by what the peer computed in."""
BY_RANK = {"aot", "aot_unpaired"}
"""Which row has a rank's loss is the objective's choice: the batch alone is compared."""


@dataclass(frozen=True)
class Case:
    """Our objective with `fields`, and modifiers, is the peer's loss called `peer`, times `times`, plus `plus()`.

    `differs` says whose definition is whose, why ours is ours, and what makes theirs of it.
    """

    name: str
    peer: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""
    times: float = 1.0
    plus: Callable[[], float] | None = None
    modifiers: tuple[Modifier, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} is {self.peer}" + (f" ({self.differs})" if self.differs else "")

    @property
    def objective(self) -> Objective:
        inner = BY_NAME[self.name](**self.fields)
        return Modified(inner=inner, modifiers=self.modifiers) if self.modifiers else inner


def ours(case: Case, pairs: Sequence[Pair], singles: Sequence[Single]) -> tuple[list[float], list[float]]:
    """The loss of each example, and what it counts for."""
    cls, objective = BY_NAME[case.name], case.objective
    rows = {
        "unpaired": singles,
        "ranked": [(row.chosen, row.rejected) for row in pairs],
    }.get(cls.data, pairs)
    example = build(cls, rows)
    return objective.loss(example).tolist(), objective.weight(example).tolist()


def farthest(differences: Iterable[tuple[Case, float]]) -> dict[str, tuple[str, float]]:
    """By the name of an objective, or of a modifier of it: which of the peer's losses is the farthest, and how far."""
    table: dict[str, tuple[str, float]] = {}
    for case, far in differences:
        for name in (case.name, *(modifier.name for modifier in case.modifiers)):
            if name not in table or far > table[name][1]:
                table[name] = (case.peer, far)
    return table


def relative(both: Iterable[tuple[float, float]]) -> float:
    """The largest relative difference of pairs of numbers."""
    return max(abs(one - other) / max(abs(other), 1e-12) for one, other in both)


class Record:
    """What a script of benchmarks/peers wrote: inputs, and the peer's losses of them."""

    def __init__(self, file: str) -> None:
        self.path = RECORDS / file

    @cached_property
    def data(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @property
    def losses(self) -> dict[str, dict[str, Any]]:
        return self.data["losses"]

    def tolerance(self, peer: str) -> float:
        return TOLERANCE[self.losses[peer].get("precision") or self.data["precision"]]

    @cached_property
    def pairs(self) -> list[Pair]:
        """The four pairs, with the reward model's outputs where the peer has one."""
        reward = self.losses.get("reward", {}).get("inputs", {})

        def side(name: str) -> list[Completion]:
            scalars, margins = reward.get(f"{name}_rewards", [0.0] * 4), reward.get("margin", [0.0] * 4)
            numbers = zip(_arrays(self.data["inputs"][name]), scalars, margins, strict=True)
            return [
                Completion(one.tokens, one.ref_tokens, one.log_collision_prob, scalar=scalar, margin=margin)
                for one, scalar, margin in numbers
            ]

        return [Pair(*both) for both in zip(side("chosen"), side("rejected"), strict=True)]

    @cached_property
    def singles(self) -> list[Single]:
        """The chosen ones, then the rejected ones, each with the mismatched completion of KTO's record."""
        mismatched = _arrays(self.losses["kto"]["inputs"]["mismatched"])
        own = [(row.chosen, True) for row in self.pairs] + [(row.rejected, False) for row in self.pairs]
        return [Single(one, desirable, other) for (one, desirable), other in zip(own, mismatched, strict=True)]

    def mean(self, case: Case) -> float:
        """Of ours over the batch, as a step has it."""
        loss, weight = ours(case, self.pairs, self.singles)
        return math.fsum(loss) / math.fsum(weight)

    def difference(self, case: Case) -> float:
        """The largest relative one, of the batch and, where the peer's loss is a mean over examples, of each."""
        loss, _ = ours(case, self.pairs, self.singles)
        theirs = self.losses[case.peer]
        mean = case.times * self.mean(case) + (case.plus() if case.plus else 0.0)
        both = [(mean, theirs["mean"])]
        each = theirs.get("per_example", [])
        if not case.plus and len(each) == len(loss) and case.name not in BY_RANK:
            both += [(case.times * one, other) for one, other in zip(loss, each, strict=True)]
        return relative(both)

    def token_mean_nll(self) -> float:
        """The peers' NLL: one mean over all chosen tokens of the batch. In a recipe: `+ sft`, weighted."""
        return self.mean(Case("sft", ""))


def _arrays(side: dict[str, Any]) -> list[Completion]:
    columns = [side[key] for key in ("token_log_probs", "ref_token_log_probs", "log_collision") if key in side]
    return [Completion(*map(tuple, each)) for each in zip(*columns, strict=True)]
