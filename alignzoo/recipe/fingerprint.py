"""What a run's result depends on, as 32 hex digits: the same for a moved folder, another for another byte."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from alignzoo.model_source import ON_TOP

if TYPE_CHECKING:
    from alignzoo.objective import Objective
    from alignzoo.recipe import Resolved

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
    values["objective"] = recipe.objective.node()
    values["data"] = resolved.data_fingerprint
    values["eval"]["metrics"] = resolved.plain["eval"]["metrics"]
    values["eval"]["judges"] = [judge.fingerprint() for judge in recipe.eval.judges]
    values["model"] = {"source": recipe.model.fingerprint()}
    values["needs"] = {key: need.fingerprint for key, need in resolved.needs.items()}
    _forget_paths(values["objective"], recipe.objective)
    on_top = recipe.model.model_dump(mode="json", include=set(ON_TOP), exclude_none=True)
    values["model"] |= on_top
    # A built-in's code is alignzoo's own: its version is recorded and does not make a finished run another one.
    origins = [resolved.registry.origin(type(part)) for part in resolved.pieces]
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
