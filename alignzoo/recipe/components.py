"""Nodes of a recipe that say a name and its fields: each becomes an instance of the class that the registry has."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from pydantic import ValidationError

from alignzoo.core.errors import Problem, UserError
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.compatibility import incompatibility
from alignzoo.objectives.composition import Modified, Sum
from alignzoo.recipe.parse import Node
from alignzoo.recipe.pydantic_errors import mark, problems_of
from alignzoo.registry.lookup import Registry

REPORTERS = ["html"]
"""When a recipe names none."""
WITHIN = {Format: "format"}
"""Fields of named nodes that are named nodes themselves: the base class that annotates them -> its kind."""


def named_nodes(plain: dict[str, Any], node: Node, known: Registry) -> Iterator[Problem]:
    """Replace every such node of a recipe by its instance; where one is wrong it is left out, and told."""
    yield from _objective(plain, node, known)
    yield from _one(plain, "data", "data source", node, known)
    if isinstance(plain.get("model"), dict):
        plain["model"].setdefault("name", "transformers")
    yield from _one(plain, "model", "model source", node, known)
    yield from _adapted(plain.get("objective"), plain.get("model"), node)
    section = plain.get("eval")
    if isinstance(section, dict):
        for key, kind in (("metrics", "metric"), ("judges", "judge")):
            if key in section:
                section[key] = yield from build_list(section[key], ("eval", key), kind, node, known)
        yield from _measured(plain.get("objective"), section, node)
    plain["reporters"] = yield from build_list(
        plain.get("reporters", REPORTERS), ("reporters",), "reporter", node, known
    )


def _adapted(objective: Any, model: Any, node: Node) -> Iterator[Problem]:
    """What can't be trained as adapters."""
    if not isinstance(objective, Objective) or not isinstance(model, ModelSource) or model.lora is None:
        return
    if objective.reference == "moving":
        what = (
            f"the reference of {objective.name} is an average of weights, and an average of adapters is none of those"
        )
        yield Problem(f"model.lora: {what}", mark(node, ("model", "lora")), "an objective whose reference stays")
    if objective.head == "scalar" and model.quantize:
        what = f"{objective.name} trains a reward model, whose head is new and in no file that could be quantized"
        yield Problem(f"model.quantize: {what}", mark(node, ("model", "quantize")), "lora alone")


def _measured(objective: Any, section: dict[str, Any], node: Node) -> Iterator[Problem]:
    """What is measured must be there: a reward model has no log-probs and writes no answers."""
    if not isinstance(objective, Objective):
        return
    words = {"scalar": "a reward model", "language_model": "a language model"}
    for i, metric in enumerate(section.get("metrics", ())):
        if metric.head != objective.head:
            what = f"{metric.name} is of {words[metric.head]}, and {objective.name} trains {words[objective.head]}"
            yield Problem(f"eval.metrics.{i}: {what}", mark(node, ("eval", "metrics", str(i))))
    if objective.head == "scalar" and section.get("judges"):
        what = f"{objective.name} trains a reward model, which writes no answers to judge"
        yield Problem(f"eval.judges: {what}", mark(node, ("eval", "judges")))


def _objective(plain: dict[str, Any], node: Node, known: Registry) -> Iterator[Problem]:
    """Replace the objective's node by an objective: one, or the weighted sum of a list."""
    given = plain.pop("objective", None)
    if given is None:
        return
    if not isinstance(given, list):
        found: list[Objective] = []
        yield from _term(given, ("objective",), node, known, found)
        if found:
            plain["objective"] = found[0]
        return
    if not given:
        yield Problem("objective: an empty list", mark(node, ("objective",)), "at least one objective")
    parts: list[Objective] = []
    weights: list[float] = []
    for i, item in enumerate(given):
        at = ("objective", str(i))
        item = {"name": item} if isinstance(item, str) else item
        weight = item.pop("weight", 1.0) if isinstance(item, dict) else 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            yield Problem(
                f"objective.{i}.weight: {weight!r} is not a weight", mark(node, (*at, "weight")), "a number above 0"
            )
            weight = 1.0
        weights.append(float(weight))
        yield from _term(item, at, node, known, parts)
    if parts and len(parts) == len(given):
        plain["objective"] = Sum(parts=tuple(parts), weights=tuple(weights))
        why = incompatibility(plain["objective"])
        if why:
            yield Problem(f"objective: {why}", mark(node, ("objective",)))


def _term(given: Any, at: tuple[str, ...], node: Node, known: Registry, found: list[Objective]) -> Iterator[Problem]:
    """One objective, with its modifiers around it, appended to `found`; nothing where there are problems."""
    modifiers = _listed(given.pop("modifiers", []) if isinstance(given, dict) else [])
    made: list[Any] = []
    beside = ("modifiers",) if at == ("objective",) else ("modifiers", "weight")
    yield from _made(given, at, "objective", node, known, made, beside)
    if not isinstance(modifiers, list):
        yield Problem(f"{'.'.join(at)}.modifiers: not a list", mark(node, (*at, "modifiers")), "a list of modifiers")
        return
    around: list[Any] = []
    for i, item in enumerate(modifiers):
        item = {"name": item} if isinstance(item, str) else item
        yield from _made(item, (*at, "modifiers", str(i)), "modifier", node, known, around)
    if not made or len(around) < len(modifiers):
        return
    objective = Modified(inner=made[0], modifiers=tuple(around)) if around else made[0]
    why = incompatibility(objective)
    if why:
        yield Problem(f"{'.'.join(at)}: {why}", mark(node, at))
        return
    found.append(objective)


def _one(plain: dict[str, Any], key: str, kind: str, node: Node, known: Registry) -> Iterator[Problem]:
    given = plain.pop(key, None)
    found: list[Any] = []
    if given is not None:
        yield from _made(given, (key,), kind, node, known, found)
    if found:
        plain[key] = found[0]


def build_list(
    given: Any, at: tuple[str, ...], kind: str, node: Node, known: Registry
) -> Generator[Problem, None, tuple[Any, ...]]:
    """A list of names, or of {name: ..., fields}; of one, it may be that itself."""
    found: list[Any] = []
    given = _listed(given)
    if not isinstance(given, list):
        yield Problem(f"{'.'.join(at)}: not a list", mark(node, at), f"a list of {kind}s")
        return ()
    for i, item in enumerate(given):
        item = {"name": item} if isinstance(item, str) else item
        yield from _made(item, (*at, str(i)), kind, node, known, found)
    names = [one.name for one in found]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield Problem(f"{'.'.join(at)}: {name} is there twice", mark(node, at))
    return tuple(found)


def _listed(given: Any) -> Any:
    """`margin` and `{name: margin, reward: 2}` are lists of one."""
    return [given] if isinstance(given, str | dict) else given


def _made(
    given: Any, at: tuple[str, ...], kind: str, node: Node, known: Registry, found: list[Any],
    beside: tuple[str, ...] = (),
) -> Iterator[Problem]:  # fmt: skip
    """An instance of the class that the registry has under a {name: ..., fields} node's name, appended to `found`."""
    key = ".".join(at)
    if not isinstance(given, dict):
        yield Problem(f"{key}: a {type(given).__name__}", mark(node, at), "a name, or {name: ..., its fields}")
        return
    fields = dict(given)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        yield Problem(f"{key}.name: missing" if name is None else f"{key}.name: {name!r} is not a name", mark(node, at))
        return
    try:
        cls = known.find(kind, name)
    except UserError as error:
        for problem in error.problems:
            where = mark(node, (*at, "name"))
            yield Problem(f"{key}.name: {problem.what}", where, problem.expected, problem.nearest, problem.hint)
        return
    for field, info in getattr(cls, "model_fields", {}).items():
        if field in fields and info.annotation in WITHIN:
            inner: list[Any] = []
            yield from _made(fields[field], (*at, field), WITHIN[info.annotation], node, known, inner)
            if not inner:
                return
            fields[field] = inner[0]
    try:
        found.append(cls(**fields))
    except ValidationError as error:
        yield from problems_of(error, node, at, cls, beside=beside)
