"""Recipes: YAML -> merged nodes -> a validated `Recipe`, with every value's origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from alignzoo.data.format import Format
from alignzoo.errors import Problem, UserError
from alignzoo.model_source import ON_TOP
from alignzoo.recipe import fingerprint as _fingerprint
from alignzoo.recipe.check import validate
from alignzoo.recipe.find import find_recipe, shipped_recipes
from alignzoo.recipe.merge import apply, hand_on, handed_on, is_base, merge, read_with_bases, without_base
from alignzoo.recipe.read import Node, Origin, read_overrides
from alignzoo.recipe.schema import Recipe
from alignzoo.registry import Registry

__all__ = ["Origin", "Recipe", "Resolved", "find_recipe", "load_recipe", "shipped_recipes"]


@dataclass(frozen=True)
class Resolved:
    """A recipe with everything merged in: what it is, where each value came from, and what it starts from."""

    recipe: Recipe
    path: Path
    node: Node
    parent: Resolved | None
    registry: Registry

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of everything that the run's result depends on. Reads every file that the recipe names."""
        return _fingerprint.fingerprint(self)

    def reread(self) -> Resolved:
        """The same recipe, whose fingerprint is of the files as they are now."""
        return replace(self, parent=self.parent and self.parent.reread())

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Every value, defaults included, as plain dictionaries."""
        values: dict[str, Any] = self.recipe.model_dump(mode="json", by_alias=True)
        values["objective"] = self.recipe.objective.node(self.registry.spelling)
        values["data"] = self._node(self.recipe.data)
        values["model"] = self._node(self.recipe.model)
        if self.recipe.model.start:  # what starts from a run has no source of its own
            del values["model"]["name"]
        for key in ("metrics", "judges"):
            values["eval"][key] = [self._node(one) for one in getattr(self.recipe.eval, key)]
        values["reporters"] = [self._node(one) for one in self.recipe.reporters]
        return values

    def _node(self, named: Any) -> dict[str, Any]:
        """A node that is chosen by name, and the ones within it."""
        name = {"name": self.registry.spelling(type(named))}
        fields = named.model_dump(mode="json", by_alias=True)
        within = {key: self._node(value) for key, value in dict(named).items() if isinstance(value, Format)}
        return name | fields | within | name

    @property
    def pieces(self) -> list[Any]:
        """Everything in it that came from the registry and that its result depends on."""
        recipe = self.recipe
        return [
            *recipe.objective.pieces, *recipe.data.pieces, recipe.model, *recipe.eval.metrics, *recipe.eval.judges
        ]  # fmt: skip

    @property
    def origins(self) -> dict[str, Origin]:
        """Dotted key -> where its value was written. A default has no entry."""
        return dict(_origins(self.node, ""))

    def to_yaml(self, start: str | None = None) -> str:
        """The resolved recipe as a file of its own; it loads to the same fingerprint.

        `start` is how that file names the resolved recipe of the run it starts from: what overlays and overrides handed
        on is in that one, and no longer in the recipe that was read.
        """
        model = self.plain["model"] | ({"from": start} if start else {})
        return yaml.safe_dump(self.plain | {"model": model}, sort_keys=False, allow_unicode=True, width=120)


def load_recipe(
    path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Resolved:
    """Read a recipe, what it extends, the overlays on top and the overrides last, and the recipe it starts from.

    `overrides` are `{"objective.beta": 0.2}` or `["objective.beta=0.2"]`. Raises UserError with every problem found.
    """
    layers = [read_with_bases(find_recipe(overlay)) for overlay in overlays]
    return _load(find_recipe(path), layers, read_overrides(overrides), ())


def _load(
    path: Path, overlays: list[Node], overrides: list[tuple[list[str], Node]], chain: tuple[Path, ...]
) -> Resolved:
    if path in chain:
        circle = " -> ".join(part.name for part in (*chain[chain.index(path) :], path))
        raise UserError(f"recipes start from each other in a circle: {circle}", where=str(path))
    node = read_with_bases(path)
    own = _objective_name(node)
    follows = _starts_from_a_run(node, overlays, overrides)
    if follows:
        _no_base_beside_from(node)
    mine = [without_base(overlay) for overlay in overlays] if follows else overlays
    for overlay in mine:
        node = merge(node, overlay)
    kept = [(key, value) for key, value in overrides if not (follows and key[0] == "model" and _of_first(key))]
    node = apply(node, kept)
    name = _objective_name(node)
    recipe, registry = validate(
        node, path.stem if not own or not name or name == own else f"{path.stem}-{name.rpartition('/')[2]}"
    )
    parent = None
    if recipe.model.start:
        below = find_recipe(recipe.model.start)
        passed = [(key, value) for key, value in overrides if handed_on(key)]
        parent = _load(below, [hand_on(overlay) for overlay in overlays], passed, (*chain, path))
        if parent.recipe.objective.head == "scalar" != recipe.objective.head:
            raise UserError(
                f"{parent.recipe.name} trains a reward model, which has no language model to start from",
                where=str(node.origin), expected="a recipe whose objective trains a language model",
            )  # fmt: skip
        if parent.recipe.model.runs_code:  # the policy that it starts from comes with that code too
            model = recipe.model.model_copy(update={"trust_remote_code": True})
            recipe = recipe.model_copy(update={"model": model})
    return Resolved(recipe, path, node, parent, registry)


def _starts_from_a_run(node: Node, overlays: list[Node], overrides: list[tuple[list[str], Node]]) -> bool:
    """Whether `model.from` is set once everything is merged."""
    start: Any = None
    for layer in (node, *overlays):
        model = layer.value.get("model")
        if model is not None and isinstance(model.value, dict) and "from" in model.value:
            start = model.value["from"].value
    for key, value in overrides:
        if key == ["model", "from"]:
            start = value.value
    return bool(start)


def _objective_name(node: Node) -> str:
    """What a recipe's objective is called; "" where there is none, or several. Another objective on top of a recipe is
    another run, and is called so."""
    objective = node.value.get("objective")
    name = objective.value.get("name") if objective is not None and isinstance(objective.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else ""


def _of_first(key: Sequence[str]) -> bool:
    return is_base(key) and key[1] not in ("dtype", "trust_remote_code", *ON_TOP)


def _no_base_beside_from(node: Node) -> None:
    model = node.value.get("model")
    if model is None or not isinstance(model.value, dict) or "from" not in model.value:
        return
    problems = [
        Problem(f"model.{key}: it says what the first policy is; write it in the recipe that model.from names",
                where=str(model.keys[key]))
        for key in model.value if _of_first(("model", key)) and model.value[key].value is not None
    ]  # fmt: skip
    if problems:
        raise UserError(problems)


def _origins(node: Node, name: str) -> list[tuple[str, Origin]]:
    if isinstance(node.value, list) and any(isinstance(child.value, dict) for child in node.value):
        children = [(str(i), child) for i, child in enumerate(node.value)]
    elif isinstance(node.value, dict):
        children = list(node.value.items())
    else:
        return [(name, node.origin)]
    return [item for key, child in children for item in _origins(child, f"{name}.{key}" if name else key)]
