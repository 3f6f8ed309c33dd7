"""Compositions: weighted sums of objectives, and objectives with modifiers.

Both are objectives themselves.

objective: [{name: dpo, beta: 0.1}, {name: sft, weight: 0.2}]
objective: {name: dpo, modifiers: [{name: length_normalization}, {name: length_desensitization}]}

Modifiers wrap the objective in the order of the list: the first one is the innermost. The loss is changed from the
inside out, and log-ratios are changed from the outside in. In the example, DPO gets the log-ratios of
`length_desensitization`, divided by the lengths of the completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from pydantic import SerializeAsAny

from alignzoo.interfaces.component import Spelling
from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import Requirements, ScoredComponent, TokenStatistic

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.interfaces.group import Group


class Composition(Objective):
    """Base class of objectives that are made of others.

    It declares what its parts need together.
    """

    def _parts(self) -> Sequence[ScoredComponent]:
        """Return the parts, an objective first."""
        raise NotImplementedError

    def model_post_init(self, context: Any, /) -> None:
        """Set on the instance the declarations that a plain objective has on its class."""
        super().model_post_init(context)
        objectives = [part for part in self._parts() if isinstance(part, Objective)]
        for key in ("name", "family", "source", "equation"):
            self.__dict__[key] = "+".join(dict.fromkeys(getattr(part, key) for part in objectives))
        for key in ("raises", "needs_runs", "min_completions", "advantage_reads_log_probs", "greedy_baseline"):
            self.__dict__[key] = getattr(objectives[0], key)
        self.__dict__.update(vars(self.requirements))

    @property
    def requirements(self) -> Requirements:
        """The declarations of all parts; data and head are those of the first."""
        return reduce(or_, (part.requirements for part in self._parts()))

    @property
    def own_statistics(self) -> dict[str, TokenStatistic]:
        """The own statistics of all parts."""
        return {name: one for part in self._parts() for name, one in part.own_statistics.items()}


class Modified(Composition):
    """An objective with modifiers around it; the first one in the recipe is the innermost."""

    inner: SerializeAsAny[Objective]
    modifiers: tuple[SerializeAsAny[Modifier], ...]

    def _parts(self) -> Sequence[ScoredComponent]:
        return (self.inner, *self.modifiers)

    def loss(self, example: Any) -> Tensor:
        """Return the modified loss, shape (B,)."""
        return _Layer(self.inner, self.modifiers).loss(example)

    def weight(self, example: Any) -> Tensor:
        """Return the objective's weight of the transformed example, shape (B,)."""
        return self.inner.weight(self._transformed(example))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the objective's implicit reward of the modified completions."""
        for modifier in reversed(self.modifiers):
            scored = modifier.scored(scored)
        return self.inner.implicit_reward(scored)

    def initial_state(self) -> dict[str, float]:
        """Return the objective's initial state."""
        return self.inner.initial_state()

    def next_state(self, example: Any) -> dict[str, float]:
        """Return the objective's state after the transformed example."""
        return self.inner.next_state(self._transformed(example))

    def advantage(self, group: Group) -> Tensor:
        """Return the objective's advantage of the transformed draws."""
        return self.inner.advantage(self._transformed(group))

    def returns(self, group: Group) -> Tensor:
        """Return the objective's targets of the critic, of the transformed draws."""
        return self.inner.returns(self._transformed(group))

    def reference_update(self, step: int) -> float:
        """Return the objective's update of a moving reference."""
        return self.inner.reference_update(step)

    def reference_correction(self, step: int) -> float:
        """Return the objective's correction of a moving reference."""
        return self.inner.reference_correction(step)

    def _transformed(self, example: Any) -> Any:
        for n in reversed(range(len(self.modifiers))):
            inside: Any = _Layer(self.inner, self.modifiers[:n])
            example = self.modifiers[n].transform(example, inside)
        return example

    @property
    def components(self) -> Sequence[ScoredComponent]:
        """The objective and its modifiers."""
        return (*self.inner.components, *self.modifiers)

    def to_recipe(self, spelling: Spelling | None = None) -> dict[str, Any]:
        """Return the objective's node with its list of modifiers."""
        around = [modifier.to_recipe(spelling) for modifier in self.modifiers]
        return {**self.inner.to_recipe(spelling), "modifiers": around}

    def __str__(self) -> str:
        return " ".join([str(self.inner), *(f"with {one.name}" for one in self.modifiers)])


class _Layer:
    """Objective with the inner modifiers, as the next modifier's `loss` gets it."""

    def __init__(self, inner: Objective, modifiers: Sequence[Modifier]) -> None:
        self._inner, self._modifiers = inner, modifiers

    def loss(self, example: Any) -> Tensor:
        if not self._modifiers:
            return self._inner.loss(example)
        below: Any = _Layer(self._inner, self._modifiers[:-1])
        return self._modifiers[-1].loss(below, example)

    def __getattr__(self, key: str) -> Any:
        return getattr(self._inner, key)


class Sum(Composition):
    """Weighted sum of objectives on the same rows, each normalized by its own weights.

    An objective on groups is a sum's only term: its advantage, returns and state are the sum's.
    """

    parts: tuple[SerializeAsAny[Objective], ...]
    weights: tuple[float, ...]

    def _parts(self) -> Sequence[ScoredComponent]:
        return self.parts

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """The (weight, objective) terms in the order of the recipe."""
        return tuple(zip(self.weights, self.parts, strict=True))

    @property
    def components(self) -> Sequence[ScoredComponent]:
        """The components of all terms."""
        return tuple(component for part in self.parts for component in part.components)

    def advantage(self, group: Group) -> Tensor:
        """Return the advantage of the only term."""
        return self.parts[0].advantage(group)

    def returns(self, group: Group) -> Tensor:
        """Return the only term's targets of the critic."""
        return self.parts[0].returns(group)

    def next_state(self, example: Any) -> dict[str, float]:
        """Return the state of the only term after a rollout. Several terms are asked one by one."""
        return self.parts[0].next_state(example)

    def reference_update(self, step: int) -> float:
        """Return the update of the term that has a moving reference."""
        return max(part.reference_update(step) for part in self.parts)

    def reference_correction(self, step: int) -> float:
        """Return the correction of the term that has a moving reference."""
        return max(part.reference_correction(step) for part in self.parts)

    def to_recipe(self, spelling: Spelling | None = None) -> list[dict[str, Any]]:
        """Return the list of the terms' nodes, each with its weight."""
        return [{**part.to_recipe(spelling), "weight": weight} for weight, part in self.terms]

    def __str__(self) -> str:
        return " + ".join(f"{weight:g} {part}" for weight, part in self.terms)
