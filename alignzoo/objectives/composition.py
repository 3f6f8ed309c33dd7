"""Sums of objectives, and modifiers that change what an objective sees: both are objectives like any other.

objective: [{name: dpo, beta: 0.1}, {name: sft, weight: 0.2}]
objective: {name: dpo, modifiers: [{name: length_normalization}, {name: length_desensitization}]}

Modifiers are wrapped around the objective in the order of the list, the first one innermost. So a loss is changed by
the first one first; log-ratios are changed from the outside in, and the first one has the last word. Above, DPO gets
the public length's log-ratios, divided by the completions' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import SerializeAsAny

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective, ReferenceKind, Requirements, Scope, Spelling, plain_name
from alignzoo.objectives.probe import reads_log_ratio

if TYPE_CHECKING:
    from torch import Tensor
from alignzoo.interfaces.modifier import Modifier


class Modified(Objective):
    """An objective with modifiers around it; the first one in the recipe is the innermost."""

    inner: SerializeAsAny[Objective]
    modifiers: tuple[SerializeAsAny[Modifier], ...]

    def loss(self, example: Any) -> Tensor:
        """The modified loss, shape (B,)."""
        return _Layer(self.inner, self.modifiers).loss(example)

    def weight(self, example: Any) -> Tensor:
        """The objective's own, of the example as it sees it."""
        return self.inner.weight(self._seen(example))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """The objective's own, of the completions as it sees them."""
        for modifier in reversed(self.modifiers):
            scored = modifier.scored(scored)
        return self.inner.implicit_reward(scored)

    def initial_state(self) -> dict[str, float]:
        """The objective's own."""
        return self.inner.initial_state()

    def next_state(self, example: Any) -> dict[str, float]:
        """The objective's own, of the example as it sees it."""
        return self.inner.next_state(self._seen(example))

    def reference_update(self, step: int) -> float:
        """The objective's own."""
        return self.inner.reference_update(step)

    def _seen(self, example: Any) -> Any:
        for n in reversed(range(len(self.modifiers))):
            inside: Any = _Layer(self.inner, self.modifiers[:n])
            example = self.modifiers[n].transform(example, inside)
        return example

    @property
    def components(self) -> Sequence[Requirements]:
        """The objective and its modifiers."""
        return (*self.inner.components, *self.modifiers)

    def to_recipe(self, spelling: Spelling = plain_name) -> dict[str, Any]:
        """As in a recipe."""
        inner = self.inner.to_recipe(spelling)
        assert isinstance(inner, dict)
        around = [{"name": spelling(type(one)), **one.model_dump(mode="json")} for one in self.modifiers]
        return inner | {"modifiers": around}

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
    """A weighted sum of objectives on the same rows, each normalized by its own weights."""

    parts: tuple[SerializeAsAny[Objective], ...]
    weights: tuple[float, ...]

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """(weight, objective), in the recipe's order."""
        return tuple(zip(self.weights, self.parts, strict=True))

    @property
    def components(self) -> Sequence[Requirements]:
        """Of all parts."""
        return tuple(piece for part in self.parts for piece in part.components)

    def reference_update(self, step: int) -> float:
        """Of the part that has a moving reference."""
        return max(part.reference_update(step) for part in self.parts)

    def to_recipe(self, spelling: Spelling = plain_name) -> list[dict[str, Any]]:
        """As in a recipe."""
        return [{**part.to_recipe(spelling), "weight": weight} for weight, part in self.terms]  # type: ignore[dict-item]

    def __str__(self) -> str:
        return " + ".join(f"{weight:g} {part}" for weight, part in self.terms)


_LARGEST = {"reference": get_args(ReferenceKind), "scope": get_args(Scope)}


def _union(key: str, parts: Sequence[Requirements]) -> Any:
    if key in ("name", "equation", "source", "family"):
        return "+".join(dict.fromkeys(getattr(part, key) for part in parts if isinstance(part, Objective)))
    values = [getattr(part, key) for part in parts if hasattr(part, key)]
    if key in ("data", "head", "raises"):  # a modifier's `data` says what it applies to
        return next(getattr(part, key) for part in parts if isinstance(part, Objective))
    if key in _LARGEST:
        return max(values, key=_LARGEST[key].index)
    if key in ("statistics", "columns"):
        return tuple(dict.fromkeys(name for value in values for name in value))
    return any(values)


def _property(key: str, parts: Callable[[Any], Sequence[Requirements]]) -> property:
    return property(lambda self: _union(key, parts(self)))


def _declare(cls: type[Objective], parts: Callable[[Any], Sequence[Requirements]]) -> None:
    """What a composition needs is what its parts need, where an ordinary objective has class attributes."""
    for key in ("name", "family", "source", "equation", "data", "mismatched", "scope", "head", "raises",
                "reference", "tokens", "statistics", "columns", "needs_uniform"):  # fmt: skip
        setattr(cls, key, _property(key, parts))


_declare(Modified, lambda self: (self.inner, *self.modifiers))


_declare(Sum, lambda self: self.parts)


def incompatibility(objective: Objective) -> str:
    """Why a composition can't be trained, or means nothing, or ""; asked when a recipe is read."""
    terms = [term for _, term in objective.terms]
    references = [term.reference for term in terms]
    if len({term.head for term in terms}) > 1:
        return "a reward model and a language model can't be one policy"
    if references.count("moving") > 1:
        return "two parts move the reference; there is one"
    if "moving" in references and set(references) - {"none", "moving"}:
        return "one part has a moving reference and another a frozen one"
    for n, term in enumerate(terms):
        if term in terms[:n]:
            return f"{term} is there twice: give it once, with both weights"
        why = _some_modifier_does_not_apply(term) if isinstance(term, Modified) else ""
        if why:
            return why
    return ""


def _some_modifier_does_not_apply(whole: Modified) -> str:
    reasons = (
        _does_not_apply(modifier, Modified(inner=whole.inner, modifiers=whole.modifiers[:n]) if n else whole.inner)
        for n, modifier in enumerate(whole.modifiers)
    )
    return next((why for why in reasons if why), "")


def _does_not_apply(modifier: Modifier, inside: Objective) -> str:
    """Why a modifier has no meaning around an objective with the modifiers inside of it, or ""."""
    name, objective = modifier.name, inside.components[0]
    assert isinstance(objective, Objective)
    if inside.data not in modifier.data:
        return f"{name} applies to {' or '.join(modifier.data)} data, and {objective.name} takes {inside.data}"
    if name in objective.already_applies:
        return f"{name} is part of {objective.name} already"
    if type(modifier) in [type(piece) for piece in inside.components]:
        return f"{name} is there twice"
    if objective.head == "scalar" and (modifier.changes_log_ratio or modifier.tokens or modifier.reference != "none"):
        return f"{name} reads log-probs, and {objective.name} trains a reward model, which has none"
    if modifier.changes_log_ratio and objective.reference == "none":
        return f"{name} changes the log-ratio, and {objective.name} has no reference to make one with"
    if modifier.changes_log_ratio and not reads_log_ratio(inside):
        return f"{name} changes the log-ratio, which {inside} does not read: it would change nothing"
    return modifier.incompatible_with(inside)
