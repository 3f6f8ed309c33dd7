"""Resolved recipes: values with their origins, the needed runs, and the fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from alignzoo.core.paths import runs_root
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.recipe.draw_checks import OF_TRAIN, SECTIONS
from alignzoo.recipe.fingerprints import digest, fingerprint, lineage
from alignzoo.recipe.needs import sources_of
from alignzoo.recipe.parse import Node, Origin
from alignzoo.recipe.schema import Recipe
from alignzoo.registry.lookup import Registry

START = "model.from"
"""The key of the recipe whose policy a run starts from."""
CRITIC = "critic.from"
"""The key of the recipe whose policy the critic starts from."""
REFERENCE = "references.{}.from"
"""The key of the recipe whose policy is the reference of a name."""


@dataclass(frozen=True)
class Resolved:
    """A recipe with everything merged in."""

    recipe: Recipe
    path: Path
    node: Node
    needs: dict[str, Resolved]
    """Dotted key (`model.from`) -> the recipe that it names, whose run comes first."""
    registry: Registry
    folder: Path | None = None
    """The folder of the finished run that this is the recipe of, where it was opened as one."""

    def __post_init__(self) -> None:
        """Let the data sources find the runs that they read, which may not be made yet."""
        sources = sources_of(self.recipe)
        for key, need in self.needs.items():
            at, _, field = key.rpartition(".")
            if at in sources:
                sources[at].bind_run(field, partial(getattr, need, "run_path"))

    @property
    def run_path(self) -> Path:
        """The run folder, named by the recipe and its fingerprint.

        The same recipe, data and start always have the same folder. A finished run that was opened as one stays where
        it is.
        """
        return self.folder or runs_root() / f"{self.recipe.name}-{self.fingerprint[:8]}"

    @property
    def start(self) -> Resolved | None:
        """The recipe whose policy this one starts from, if any."""
        return self.needs.get(START)

    @property
    def first(self) -> Resolved:
        """The first recipe of a chain of starts, whose model has a source of its own."""
        return self.start.first if self.start else self

    @cached_property
    def data_fingerprint(self) -> str:
        """The fingerprint of the data, as the run's fingerprint counts it.

        It is made of `data.fingerprint()` and those of the runs that the data needs.
        """
        return self.digest_data()

    def digest_data(self, evaluation: str | None = None) -> str:
        """Return `data_fingerprint`, computed from the files as they are now.

        Args:
            evaluation: Name of the evaluation set in place of the recipe's `data`.
        """
        at = "data" if evaluation is None else f"eval.data.{evaluation}"
        needs = {key: need.fingerprint for key, need in self.needs.items() if key.startswith(f"{at}.")}
        own = self.source(evaluation).fingerprint()
        return digest([own, needs]) if needs else own

    def source(self, evaluation: str | None = None) -> DataSource:
        """Return the recipe's `data`, or one of its evaluation sets."""
        return self.recipe.data if evaluation is None else self.recipe.eval.data[evaluation]

    @cached_property
    def evaluation_fingerprints(self) -> dict[str, str]:
        """The digest of each evaluation set, as `data_fingerprint`."""
        return {name: self.digest_data(name) for name in self.recipe.eval.data}

    @property
    def source_code(self) -> str:
        """Digest of the plugin code that loads the model, or "" for a built-in source."""
        return self.code_of(self.recipe.model)

    def code_of(self, model: ModelSource) -> str:
        """Return the digest of the plugin code that loads a model, or "" for a built-in source."""
        origin = self.registry.origin(type(model))
        return "" if origin.package == "alignzoo" else origin.code

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of everything that the run's result depends on.

        The contents of files are included.
        """
        return fingerprint(self)

    @cached_property
    def lineage(self) -> str:
        """32 hex digits of the same without the number of steps.

        A longer run continues a shorter one.
        """
        return lineage(self)

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted key -> value of the settings that are no part of the fingerprint.

        They change speed, display, or what is kept.
        """
        recipe, train = self.recipe, self.recipe.train
        if recipe.draw is not None:
            return {"draw.batch_tokens": recipe.draw.batch_tokens}
        names = [name for name in train.fields_without_effect() if name != "keep_optimizer"]  # of the run's end alone
        found: dict[str, Any] = {f"train.{name}": getattr(train, name) for name in names}
        if recipe.rollout is not None:
            found |= {f"rollout.{key}": getattr(recipe.rollout, key) for key in ("batch_tokens",)}
        if train.best_metric is None:
            found["eval.every"] = recipe.eval.every
        found["eval.replies.every"] = recipe.eval.replies.every
        return found | {"reporters": [reporter.name for reporter in recipe.reporters]}

    def reread(self) -> Resolved:
        """Return the same recipe with a fingerprint of the files as they are now."""
        return replace(self, needs={key: need.reread() for key, need in self.needs.items()})

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Every value, defaults included, as plain dictionaries."""
        values: dict[str, Any] = self.recipe.model_dump(mode="json", by_alias=True)
        if self.recipe.draw is None:
            values["objective"] = self.recipe.objective.to_recipe(self.registry.spelling)
        values["data"] = self._node(self.recipe.data)
        values["model"] = self._node(self.recipe.model)
        values["references"] = {name: self._node(model) for name, model in self.recipe.references.items()}
        models = {"model.from": values["model"]}
        models |= {REFERENCE.format(name): model for name, model in values["references"].items()}
        if self.recipe.critic is None:
            del values["critic"]
        else:
            values["critic"] = models[CRITIC] = self.recipe.critic.to_recipe(self.registry.spelling)
        for key, model in models.items():
            if key in self.needs:  # what starts from a run has no source of its own
                del model["name"]
        for key in ("metrics", "judges"):
            values["eval"][key] = [self._node(one) for one in getattr(self.recipe.eval, key)]
        values["eval"]["data"] = {name: self._node(source) for name, source in self.recipe.eval.data.items()}
        for section in ("rollout", "draw"):
            config = getattr(self.recipe, section)
            if config is None:
                del values[section]
            else:
                rewards = [reward.to_recipe(self.registry.spelling) for reward in config.rewards]
                values[section]["rewards"] = rewards or None
        if self.recipe.filter is None:
            del values["filter"]
        else:
            values["filter"]["metric"] = self._node(self.recipe.filter.metric)
        values["reporters"] = [self._node(one) for one in self.recipe.reporters]
        if self.recipe.draw is not None:
            values["train"] = {key: values["train"][key] for key in OF_TRAIN}
            return {key: values[key] for key in values if key in SECTIONS}
        return values

    def _node(self, named: Any) -> dict[str, Any]:
        """A component as plain values, nested formats included."""
        name = {"name": self.registry.spelling(type(named))}
        fields = named.model_dump(mode="json", by_alias=True)
        within: dict[str, Any] = {
            key: self._node(value) for key, value in dict(named).items() if isinstance(value, Format)
        }
        if "of" in fields:  # the sources of a mixture, without what they take from it
            parts = zip(fields["of"], named.of, strict=True)
            within["of"] = [{key: node[key] for key in own} for own, part in parts for node in [self._node(part)]]
        return name | fields | within | name

    @property
    def components(self) -> list[Any]:
        """Every component from the registry that the result depends on."""
        recipe = self.recipe
        return [
            *(() if recipe.draw else recipe.objective.components), *recipe.data.components,
            recipe.model, *recipe.references.values(),
            *(part for source in recipe.eval.data.values() for part in source.components),
            *([recipe.critic.model] if recipe.critic and recipe.critic.model else ()),
            *recipe.eval.metrics, *recipe.eval.judges, *([recipe.filter.metric] if recipe.filter else ()),
            *(reward.judge for reward in (recipe.drawing.rewards if recipe.drawing else ())),
        ]  # fmt: skip

    @property
    def origins(self) -> dict[str, Origin]:
        """Dotted key -> the place of its value. A default has no entry."""
        return dict(_origins(self.node, ""))

    def to_yaml(self, places: Mapping[str, str] | None = None) -> str:
        """Return the resolved recipe as YAML that loads to the same fingerprint.

        Args:
            places: Dotted key -> the path of a needed run's resolved recipe, written in place of the original recipe:
                only the resolved one holds what overlays and overrides add.
        """
        values = deepcopy(self.plain)
        for key, path in (places or {}).items():
            *sections, last = key.split(".")
            below: Any = values
            for section in sections:
                below = below[int(section) if isinstance(below, list) else section]
            below[last] = path
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _origins(node: Node, name: str) -> list[tuple[str, Origin]]:
    if isinstance(node.value, list) and any(isinstance(child.value, dict) for child in node.value):
        children = [(str(i), child) for i, child in enumerate(node.value)]
    elif isinstance(node.value, dict):
        children = list(node.value.items())
    else:
        return [(name, node.origin)]
    return [item for key, child in children for item in _origins(child, f"{name}.{key}" if name else key)]
