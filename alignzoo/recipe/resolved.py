"""A resolved recipe: its values, where each came from, the runs it needs, and its fingerprint."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from alignzoo.core.dotted import dotted_items
from alignzoo.interfaces.model_source import ON_TOP

if TYPE_CHECKING:
    from alignzoo.interfaces.objective import Objective
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml

from alignzoo.interfaces.format import Format
from alignzoo.recipe import resolved as _fingerprint
from alignzoo.recipe.parse import Node, Origin
from alignzoo.recipe.schema import Recipe
from alignzoo.registry.lookup import Registry

START = "model.from"
"""The key of the recipe whose policy a run starts from."""


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
        values["objective"] = self.recipe.objective.to_recipe(self.registry.spelling)
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
    def components(self) -> list[Any]:
        """Everything in it that came from the registry and that its result depends on."""
        recipe = self.recipe
        return [
            *recipe.objective.components, *recipe.data.components, recipe.model,
            *recipe.eval.metrics, *recipe.eval.judges,
        ]  # fmt: skip

    @property
    def origins(self) -> dict[str, Origin]:
        """Dotted key -> where its value was written. A default has no entry."""
        return {key: leaf.origin for key, leaf in dotted_items(self.node, _children)}

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


def _children(node: Node) -> Iterable[tuple[str, Node]] | None:
    if isinstance(node.value, list) and any(isinstance(child.value, dict) for child in node.value):
        return [(str(i), child) for i, child in enumerate(node.value)]
    return node.value.items() if isinstance(node.value, dict) else None


NOT_IN_IT = {"train": ("checkpoint_every", "keep_checkpoints")}
"""How often a run is saved changes nothing about it."""


def fingerprint(resolved: Resolved) -> str:
    """Of the recipe's values, the contents of every file it names, its plugins, and the runs it needs.

    A field that names a recipe counts as the fingerprint of that recipe's run, under the same dotted key.
    """
    recipe = resolved.recipe
    outside = {"name", "plugins", "reporters", "data", "model"}
    values: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude=outside)
    for section, keys in NOT_IN_IT.items():
        for key in keys:
            values[section].pop(key)
    values["objective"] = recipe.objective.to_recipe()
    values["data"] = resolved.data_fingerprint
    values["eval"]["metrics"] = resolved.plain["eval"]["metrics"]
    values["eval"]["judges"] = [judge.fingerprint() for judge in recipe.eval.judges]
    values["model"] = {"source": recipe.model.fingerprint()}
    values["needs"] = {key: need.fingerprint for key, need in resolved.needs.items()}
    _forget_paths(values["objective"], recipe.objective)
    on_top = recipe.model.model_dump(mode="json", include=set(ON_TOP), exclude_none=True)
    values["model"] |= on_top
    # A built-in's code is alignzoo's own: its version is recorded and does not make a finished run another one.
    origins = [resolved.registry.origin(type(part)) for part in resolved.components]
    values["plugins"] = [origin.code for origin in origins if origin.package != "alignzoo"]
    return digest(values)


def digest(values: Any) -> str:
    """32 hex digits of plain values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _forget_paths(node: Any, objective: Objective) -> None:
    nodes = node if isinstance(node, list) else [node]
    for one, (_, term) in zip(nodes, objective.terms, strict=True):
        for key in term.needs_runs:
            one.pop(key, None)
