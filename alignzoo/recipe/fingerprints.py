"""Fingerprints of recipes: digests of everything that a run's result depends on."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from alignzoo.interfaces.component import Component
from alignzoo.interfaces.model_source import ON_TOP, ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.draw_checks import OF_TRAIN

if TYPE_CHECKING:
    from alignzoo.recipe.resolved import Resolved


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
    if recipe.draw is not None:
        return _values_of_draws(resolved, recipe.draw)
    outside = dict.fromkeys(("name", "plugins", "reporters", "data", "model", "references", "critic"), True)
    left_out = recipe.fields_without_effect() | outside
    values: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude=left_out)
    del values["draw"]
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
    values["plugins"] = _plugins(resolved)
    return values


def _plugins(resolved: Resolved) -> list[str]:
    """Return the digests of the code of plugins.

    A new version of alignzoo keeps the fingerprints of finished runs.
    """
    origins = [resolved.registry.origin(type(part)) for part in resolved.components]
    return [origin.code for origin in origins if origin.package != "alignzoo"]


def _values_of_draws(resolved: Resolved, draw: DrawConfig) -> dict[str, Any]:
    """Return what the fingerprint of a recipe with `draw` is a digest of."""
    recipe = resolved.recipe
    own = draw.model_dump(mode="json", exclude=draw.fields_without_effect() | {"rewards": True})
    return {
        "draw": own | {"rewards": [reward.fingerprint() for reward in draw.rewards]},
        "data": resolved.data_fingerprint, "model": _model(recipe.model), "seed": recipe.seed,
        "tokens": recipe.tokens.model_dump(mode="json"),
        "train": recipe.train.model_dump(mode="json", include=set(OF_TRAIN)),
        "needs": {key: need.fingerprint for key, need in resolved.needs.items()}, "plugins": _plugins(resolved),
    }  # fmt: skip


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
