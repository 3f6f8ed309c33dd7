"""Resolved recipes: values with their origins, the needed runs, and the fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml

from alignzoo.interfaces.component import Component
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.model_source import ON_TOP, ModelSource
from alignzoo.interfaces.objective import Objective
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
        if self.recipe.rollout is None:
            del values["rollout"]
        else:
            rewards = self.recipe.rollout.rewards
            values["rollout"]["rewards"] = [reward.to_recipe(self.registry.spelling) for reward in rewards] or None
        if self.recipe.filter is None:
            del values["filter"]
        else:
            values["filter"]["metric"] = self._node(self.recipe.filter.metric)
        values["reporters"] = [self._node(one) for one in self.recipe.reporters]
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
            *recipe.objective.components, *recipe.data.components, recipe.model, *recipe.references.values(),
            *(part for source in recipe.eval.data.values() for part in source.components),
            *([recipe.critic.model] if recipe.critic and recipe.critic.model else ()),
            *recipe.eval.metrics, *recipe.eval.judges, *([recipe.filter.metric] if recipe.filter else ()),
            *(reward.judge for reward in (recipe.rollout.rewards if recipe.rollout else ())),
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


def fingerprint(resolved: Resolved) -> str:
    """Return 32 hex digits of everything that the run's result depends on.

    These are the values, the contents of every named file, the plugins' code, and the needed runs. A field that names a
    recipe counts as the fingerprint of that recipe's run, under the same dotted key.
    """
    return digest(_values(resolved))


CONSTANT = {"micro_batch_tokens": 4096}
"""What fingerprints have had for a key of `train` that is no longer counted, so that recipes with it keep theirs."""
LENGTH = ("epochs", "max_steps")
"""Keys of `train` that only decide how many steps a run with a constant schedule takes."""


def lineage(resolved: Resolved) -> str:
    """Return the fingerprint without the length of the run, which a longer run shares."""
    values = _values(resolved)
    return digest(values | {"train": {key: value for key, value in values["train"].items() if key not in LENGTH}})


def _values(resolved: Resolved) -> dict[str, Any]:
    """Return what the fingerprint is a digest of."""
    recipe = resolved.recipe
    outside = dict.fromkeys(("name", "plugins", "reporters", "data", "model", "references", "critic"), True)
    left_out = recipe.fields_without_effect() | outside
    values: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude=left_out)
    values["train"] |= CONSTANT
    for key in ("keep_best", "early_stopping", "greater_is_better"):
        if values["train"][key] is None:  # as before there were any
            del values["train"][key]
    if recipe.train.best_metric is None:  # nothing reads the evaluations during training
        values["eval"]["every"] = None
    values["objective"] = _objective(recipe.objective)
    values["data"] = resolved.data_fingerprint
    metrics = zip(resolved.plain["eval"]["metrics"], recipe.eval.metrics, strict=True)
    values["eval"]["metrics"] = [_with_effect(node, metric) for node, metric in metrics]
    del values["eval"]["allow_overlap"], values["eval"]["data"]
    if resolved.evaluation_fingerprints:
        values["eval"]["data"] = list(resolved.evaluation_fingerprints.items())  # replies are those of the first
    if recipe.train.weight_decay_on == "all":  # as before there was a choice
        del values["train"]["weight_decay_on"]
    if not recipe.train.schedule.warmup_ratio:
        del values["train"]["schedule"]["warmup_ratio"]
    values["eval"]["judges"] = [judge.fingerprint() for judge in recipe.eval.judges]
    if recipe.rollout is None:
        del values["rollout"]
    else:
        values["rollout"]["rewards"] = [reward.fingerprint() for reward in recipe.rollout.rewards]
        for key in ("stop", "end_tokens"):  # as before there were any
            if not values["rollout"][key]:
                del values["rollout"][key]
    values["filter"] = resolved.plain.get("filter")
    if recipe.filter is None:
        del values["filter"]
    else:
        values["filter"] = values["filter"] | {"metric": _with_effect(values["filter"]["metric"], recipe.filter.metric)}
    values["model"] = _model(recipe.model)
    if recipe.references:
        values["references"] = {name: _model(model) for name, model in recipe.references.items()}
    if recipe.critic is not None and not recipe.critic.is_default:
        source = recipe.critic.model
        values["critic"] = recipe.critic.fingerprint() | ({} if source is None else {"model": _model(source)})
    values["needs"] = {key: need.fingerprint for key, need in resolved.needs.items()}
    _forget_paths(values["objective"], recipe.objective)
    # Only the code of plugins counts: a new version of alignzoo keeps the fingerprints of finished runs.
    origins = [resolved.registry.origin(type(part)) for part in resolved.components]
    values["plugins"] = [origin.code for origin in origins if origin.package != "alignzoo"]
    return values


def _model(model: ModelSource) -> dict[str, Any]:
    """Everything that a model depends on but the run that it starts from."""
    return {"source": model.fingerprint()} | model.model_dump(mode="json", include=set(ON_TOP), exclude_none=True)


def _objective(objective: Objective) -> Any:
    """Return the node of an objective without fields marked `NoEffect`, modifiers included."""
    given = objective.to_recipe()
    nodes = given if isinstance(given, list) else [given]
    found = []
    for node, (_, term) in zip(nodes, objective.terms, strict=True):
        inner, *modifiers = term.components
        around = zip(node.get("modifiers", ()), modifiers, strict=True)
        own = {"modifiers": [_with_effect(*one) for one in around]} if modifiers else {}
        found.append(_with_effect(node, inner) | own)
    return found if isinstance(given, list) else found[0]


def _with_effect(node: dict[str, Any], component: Component) -> dict[str, Any]:
    """Return the node of a component without the fields that are marked `NoEffect`."""
    if not (marked := component.fields_without_effect()):
        return node
    kept = component.model_dump(mode="json", by_alias=True, exclude=marked)
    fields = {field.alias or name for name, field in type(component).model_fields.items()}
    return {key: kept.get(key, value) for key, value in node.items() if key not in fields or key in kept}


def digest(values: Any) -> str:
    """Return 32 hex digits of plain values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _forget_paths(node: Any, objective: Objective) -> None:
    nodes = node if isinstance(node, list) else [node]
    for one, (_, term) in zip(nodes, objective.terms, strict=True):
        for key in term.needs_runs:
            one.pop(key, None)
