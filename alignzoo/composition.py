"""Sums of objectives, and modifiers that change what an objective sees: both are objectives like any other.

objective: [{name: dpo, beta: 0.1}, {name: sft, weight: 0.2}]
objective: {name: dpo, modifiers: [{name: length_normalised}]}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SerializeAsAny

from alignzoo.objective import Needs, Objective, Scored

if TYPE_CHECKING:
    from torch import Tensor

REFERENCES = ("none", "sequence", "token", "live", "moving")
"""From the least to the most."""


class Modifier(Needs):
    """Base class: changes what an objective sees, or its loss. Return it from `register_modifiers`.

    Override `scored` when it changes each completion's log-ratio by itself, `see` when it needs the whole example, and
    `loss` when it changes the loss.
    """

    data: ClassVar[tuple[str, ...]] = ("pair", "unpaired", "ranked", "chosen")
    """What objectives it applies to."""
    changes_log_ratio: ClassVar[bool] = True
    """Whether it works through the log-ratio: an objective that reads none can't be modified by it."""

    def scored(self, scored: Scored) -> Scored:
        """The completions as the objective shall see them: usually `scored.with_log_ratio(...)`."""
        return scored

    def see(self, example: Any, objective: Objective) -> Any:
        """The example as the objective shall see it: every completion through `scored`."""
        if isinstance(example, Scored):
            return self.scored(example)
        return replace(example, **{name: self.scored(side) for name, side in example.sides().items()})

    def loss(self, objective: Objective, example: Any) -> Tensor:
        """The objective's loss of the example, shape (B,), modified."""
        return objective.loss(self.see(example, objective))


class Modified(Objective):
    """An objective with modifiers around it; the first one in the recipe is the innermost."""

    inner: SerializeAsAny[Objective]
    modifiers: tuple[SerializeAsAny[Modifier], ...]

    def loss(self, example: Any) -> Tensor:
        """The modified loss, shape (B,)."""
        return _Layer(self.inner, self.modifiers).loss(example)

    def weight(self, example: Any) -> Tensor:
        """The objective's own."""
        return self.inner.weight(example)

    def reward(self, scored: Scored) -> Tensor:
        """The objective's own, of the completions as it sees them."""
        for modifier in reversed(self.modifiers):
            scored = modifier.scored(scored)
        return self.inner.reward(scored)

    def initial_state(self) -> dict[str, float]:
        """The objective's own."""
        return self.inner.initial_state()

    def next_state(self, example: Any) -> dict[str, float]:
        """The objective's own."""
        return self.inner.next_state(example)

    def sync(self, step: int) -> float:
        """The objective's own."""
        return self.inner.sync(step)

    @property
    def pieces(self) -> Sequence[Needs]:
        """The objective and its modifiers."""
        return (*self.inner.pieces, *self.modifiers)

    def node(self) -> dict[str, Any]:
        """As in a recipe."""
        inner = self.inner.node()
        assert isinstance(inner, dict)
        return inner | {"modifiers": [{"name": one.name, **one.model_dump(mode="json")} for one in self.modifiers]}

    def __str__(self) -> str:
        return " ".join([str(self.inner), *(f"with {one.name}" for one in self.modifiers)])


class _Layer:
    """The objective as the next modifier sees it: `loss` goes through the modifiers inside of that one."""

    def __init__(self, inner: Objective, modifiers: Sequence[Modifier]) -> None:
        self._inner, self._modifiers = inner, modifiers

    def loss(self, example: Any) -> Tensor:
        if not self._modifiers:
            return self._inner.loss(example)
        below: Any = _Layer(self._inner, self._modifiers[:-1])
        return self._modifiers[-1].loss(below, example)

    def __getattr__(self, key: str) -> Any:
        return getattr(self._inner, key)


class Sum(Objective):
    """A weighted sum of objectives on the same rows, each normalised by its own weights."""

    parts: tuple[SerializeAsAny[Objective], ...]
    weights: tuple[float, ...]

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """(weight, objective), in the recipe's order."""
        return tuple(zip(self.weights, self.parts, strict=True))

    @property
    def pieces(self) -> Sequence[Needs]:
        """Of all parts."""
        return tuple(piece for part in self.parts for piece in part.pieces)

    def sync(self, step: int) -> float:
        """Of the part that has a moving reference."""
        return max(part.sync(step) for part in self.parts)

    def node(self) -> list[dict[str, Any]]:
        """As in a recipe."""
        return [{**part.node(), "weight": weight} for weight, part in self.terms]  # type: ignore[dict-item]

    def __str__(self) -> str:
        return " + ".join(f"{weight:g} {part}" for weight, part in self.terms)


_LARGEST = {"reference": REFERENCES, "scope": ("example", "batch")}


def _union(key: str, parts: Sequence[Needs]) -> Any:
    if key in ("name", "equation", "source", "family"):
        return "+".join(dict.fromkeys(getattr(part, key) for part in parts if isinstance(part, Objective)))
    values = [getattr(part, key) for part in parts if hasattr(part, key)]
    if key in ("data", "head"):  # a modifier's `data` says what it applies to
        return next(getattr(part, key) for part in parts if isinstance(part, Objective))
    if key in _LARGEST:
        return max(values, key=_LARGEST[key].index)
    if key in ("statistics", "columns"):
        return tuple(dict.fromkeys(name for value in values for name in value))
    return any(values)


def _property(key: str, parts: Callable[[Any], Sequence[Needs]]) -> property:
    return property(lambda self: _union(key, parts(self)))


def _declare(cls: type[Objective], parts: Callable[[Any], Sequence[Needs]]) -> None:
    """What a composition needs is what its parts need, where an ordinary objective has class attributes."""
    for key in ("name", "family", "source", "equation", "data", "mismatched", "scope", "head",
                "reference", "tokens", "statistics", "columns", "random"):  # fmt: skip
        setattr(cls, key, _property(key, parts))


_declare(Modified, lambda self: (self.inner, *self.modifiers))
_declare(Sum, lambda self: self.parts)


def meaningless(objective: Objective) -> str:
    """Why a composition can't be trained, or "": asked when a recipe is read."""
    references = {term.reference for _, term in objective.terms}
    if len({term.head for _, term in objective.terms}) > 1:
        return "a reward model and a language model can't be one policy"
    if "moving" in references and len(references - {"none"}) > 1:
        return "one part has a moving reference and another a frozen one"
    for _, term in objective.terms:
        if isinstance(term, Modified):
            for modifier in term.modifiers:
                why = _does_not_apply(modifier, term.inner)
                if why:
                    return why
    return ""


def _does_not_apply(modifier: Modifier, objective: Objective) -> str:
    if objective.data not in modifier.data:
        kinds = " or ".join(modifier.data)
        return f"{modifier.name} applies to {kinds} data, and {objective.name} takes {objective.data}"
    if modifier.changes_log_ratio and objective.reference == "none":
        return f"{modifier.name} changes the log-ratio, and {objective.name} has no reference to make one with"
    return ""
