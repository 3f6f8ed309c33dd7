"""Recipes: YAML -> merged nodes -> a validated `Recipe`, with every value's origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
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
from alignzoo.recipe.merge import apply, is_base, merge, read_with_bases, without_base
from alignzoo.recipe.needs import inherited_overlay, inherited_overrides, recipe_named, runs_named
from alignzoo.recipe.read import Node, Origin, read_overrides
from alignzoo.recipe.schema import Recipe
from alignzoo.registry import Registry

START = "model.from"
"""The key of the recipe whose policy a run starts from."""

__all__ = ["Origin", "Recipe", "Resolved", "find_recipe", "load_recipe", "shipped_recipes"]


@dataclass(frozen=True)
class Resolved:
    """A recipe with everything merged in: its values, the place of each, and the runs that it needs."""

    recipe: Recipe
    path: Path
    node: Node
    needs: dict[str, Resolved]
    """Dotted key (`model.from`) -> the recipe that the key names. Its run is made first."""
    registry: Registry

    @property
    def start(self) -> Resolved | None:
        """The recipe whose policy this one starts from."""
        return self.needs.get(START)

    @property
    def first(self) -> Resolved:
        """The first recipe of a chain of starts, or itself: the one whose model has a source of its own."""
        return self.start.first if self.start else self

    @cached_property
    def data_fingerprint(self) -> str:
        """`data.fingerprint()` and those of the runs that the data needs, as the run's fingerprint counts them."""
        return self.digest_data()

    def digest_data(self) -> str:
        """`data_fingerprint`, computed again."""
        needs = {key: need.fingerprint for key, need in self.needs.items() if key.startswith("data.")}
        own = self.recipe.data.fingerprint()
        return _fingerprint.digest([own, needs]) if needs else own

    @property
    def source_code(self) -> str:
        """Digest of the plugin's code that loads the model; "" where alignzoo's own does."""
        origin = self.registry.origin(type(self.recipe.model))
        return "" if origin.package == "alignzoo" else origin.code

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of everything that the run's result depends on. Reads every file that the recipe names."""
        return _fingerprint.fingerprint(self)

    def reread(self) -> Resolved:
        """The same recipe, whose fingerprint is of the files as they are now."""
        return replace(self, needs={key: need.reread() for key, need in self.needs.items()})

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Every value, defaults included, as plain dictionaries."""
        values: dict[str, Any] = self.recipe.model_dump(mode="json", by_alias=True)
        values["objective"] = self.recipe.objective.node(self.registry.spelling)
        values["data"] = self._node(self.recipe.data)
        values["model"] = self._node(self.recipe.model)
        if self.start:  # what starts from a run has no source of its own
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

    def to_yaml(self, places: Mapping[str, str] | None = None) -> str:
        """The resolved recipe as a file of its own; it loads to the same fingerprint.

        `places`: dotted key -> how that file names the resolved recipe of a needed run. What overlays and overrides
        add to a needed run is in its own resolved recipe, and no longer in the recipe that was read.
        """
        values = deepcopy(self.plain)
        for key, place in (places or {}).items():
            *sections, last = key.split(".")
            below: Any = values
            for section in sections:
                below = below[int(section) if isinstance(below, list) else section]
            below[last] = place
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def load_recipe(
    path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Resolved:
    """Read a recipe, what it extends, the overlays on top and the overrides last, and the recipes that it needs.

    `overrides` are `{"objective.beta": 0.2}` or `["objective.beta=0.2"]`. Raises UserError with every problem found.
    """
    layers = [read_with_bases(find_recipe(overlay)) for overlay in overlays]
    return _load(find_recipe(path), layers, read_overrides(overrides), ())


def _load(
    path: Path, overlays: list[Node], overrides: list[tuple[list[str], Node]], chain: tuple[Path, ...]
) -> Resolved:
    if path in chain:
        circle = " -> ".join(part.name for part in (*chain[chain.index(path) :], path))
        raise UserError(f"recipes need each other's runs in a circle: {circle}", where=str(path))
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
    named = runs_named(recipe)
    below = [inherited_overlay(overlay, named) for overlay in overlays]
    passed = inherited_overrides(overrides, named)
    needs = {key: _load(recipe_named(node, key, other), below, passed, (*chain, path)) for key, other in named.items()}
    if START in needs:
        recipe = _started(recipe, needs[START].recipe, str(node.origin))
    return Resolved(recipe, path, node, needs, registry)


def _started(recipe: Recipe, start: Recipe, where: str) -> Recipe:
    """The recipe as it continues from `start`'s policy, which may come with code. Raises UserError if it can't."""
    if start.objective.head == "scalar" != recipe.objective.head:
        raise UserError(
            f"{start.name} trains a reward model, which has no language model to start from", where=where,
            expected="a recipe whose objective trains a language model",
        )  # fmt: skip
    if start.model.runs_code:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"trust_remote_code": True})})
    return recipe


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
