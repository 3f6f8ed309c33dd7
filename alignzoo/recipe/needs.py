"""Needed runs of a recipe: the fields that name them, and the values that they inherit.

A needed run inherits whole overlays, and of the overrides those of `data`, `tokens` and `model`, always without the
keys that each run keeps for itself (`OWN`) and the keys that name recipes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.judge import Judge
from alignzoo.interfaces.model_source import ON_TOP
from alignzoo.recipe.find import find_recipe
from alignzoo.recipe.parse import COMMAND_LINE, Node
from alignzoo.recipe.schema import Recipe

INHERITED = ("data", "tokens", "model")
"""Sections whose overrides a needed run inherits."""
OWN = ("objective", "references", "filter", "name", "reporters", "rollout", "draw", "critic", "eval.metrics",
       "eval.judges")  # fmt: skip
"""Keys that each run keeps for itself."""
OF_ONE_RUN = ("label_noise", "label_noise_seed", "prefix_tokens", "group_range", "labels")
"""Further ones, of `data` and of the sources that it mixes: label noise belongs to the preferences of one run, and runs
share out the rows by `group_range`."""
Overrides = Sequence[tuple[list[str], Node]]


def runs_named(recipe: Recipe) -> dict[str, str]:
    """Return dotted key -> recipe, for every field that names a recipe whose run is needed."""
    terms = recipe.objective.terms
    alone = terms[0][1] is recipe.objective  # a list of one is a sum, whose field is objective.0
    objectives = {"objective" if alone else f"objective.{i}": term for i, (_, term) in enumerate(terms)}
    references = {f"references.{name}": model for name, model in recipe.references.items()}
    pieces: dict[str, Any] = {
        "model": recipe.model,
        **references,
        **({"critic": recipe.critic.model} if recipe.critic and recipe.critic.model else {}),
        **sources_of(recipe),
        **objectives,
        **judges_of(recipe),
    }
    return {f"{at}.{key}": value for at, piece in pieces.items() for key, value in _named(piece) if value}


def sources_of(recipe: Recipe) -> dict[str, DataSource]:
    """Return dotted key -> data source: the data, the evaluation sets, and parts of mixtures."""
    found = {"data": recipe.data} | {f"eval.data.{name}": source for name, source in recipe.eval.data.items()}
    return found | {
        f"{at}.of.{i}": part for at, source in found.items() for i, part in enumerate(getattr(source, "of", ()))
    }


def judges_of(recipe: Recipe) -> dict[str, Judge]:
    """Return dotted key -> judge, for every reward and every judge of the evaluation."""
    section = "draw" if recipe.draw else "rollout"
    rewards = recipe.drawing.rewards if recipe.drawing else ()
    found = {f"{section}.rewards.{n}": reward.judge for n, reward in enumerate(rewards)}
    return found | {f"eval.judges.{n}": judge for n, judge in enumerate(recipe.eval.judges)}


def recipe_named(node: Node, key: str, named: str) -> Path:
    """Return the path of the recipe at a dotted key.

    The recipe is beside the file that wrote the key, else found as on the command line.
    """
    for part in key.split("."):
        if isinstance(node.value, list):
            node = node.value[int(part)]
        elif isinstance(node.value, dict):
            node = node.value.get(part, node)
    beside = Path(node.origin.file).parent / named
    return find_recipe(beside if node.origin.file != COMMAND_LINE and beside.is_file() else named)


def _named(piece: Any) -> Iterator[tuple[str, str | None]]:
    piece = getattr(piece, "inner", piece)  # of a modified objective
    for name, field in type(piece).model_fields.items():
        key = field.alias or name
        if key in getattr(piece, "needs_runs", ()):
            yield key, getattr(piece, name)


def inherited_overlay(overlay: Node, named: Collection[str]) -> Node:
    """Return the part of an overlay that a needed run inherits.

    `named` are the keys that name recipes.
    """
    result = deepcopy(overlay)
    for key in (*OWN, *named):
        *sections, last = key.split(".")
        below: Node | None = result
        for section in sections:
            below = below.value.get(section) if below is not None and isinstance(below.value, dict) else None
        if below is not None and isinstance(below.value, dict):
            below.value.pop(last, None)
    if isinstance(result.value, dict) and "data" in result.value:
        _remove_own(result.value["data"])
    return result


def _remove_own(node: Node) -> None:
    """Remove the keys `OF_ONE_RUN` from a data source and from the sources that it mixes."""
    if isinstance(node.value, dict):
        for key in OF_ONE_RUN:
            node.value.pop(key, None)
        parts = node.value.get("of")
        for child in parts.value if parts is not None and isinstance(parts.value, list) else ():
            _remove_own(child)


def _is_of_one_run(path: Sequence[str]) -> bool:
    """Return True for an override of a key `OF_ONE_RUN`.

    An override of a field of one counts, such as `data.prefix_tokens.most`.
    """
    inner = path[3:] if path[1:2] == ["of"] else path[1:]
    return path[0] == "data" and bool(inner) and inner[0] in OF_ONE_RUN


def inherited_overrides(overrides: Overrides, named: Collection[str]) -> list[tuple[list[str], Node]]:
    """Return the overrides that a needed run inherits.

    `model.lora` and `model.quantize` describe the training of one run, as its learning rate does, and stay with it.
    """
    own = {*OWN, *named, *(f"model.{key}" for key in ON_TOP)}
    kept = [
        (path, deepcopy(value))
        for path, value in overrides
        if path[0] in INHERITED and len(path) > (path[0] == "model")
        and not any(".".join(path[:depth]) in own for depth in range(1, len(path) + 1))
        and not _is_of_one_run(path)
    ]  # fmt: skip
    for path, value in kept:
        if path == ["data"] or (path[:2] == ["data", "of"] and len(path) == 3):
            _remove_own(value)
        elif path == ["data", "of"] and isinstance(value.value, list):
            for part in value.value:
                _remove_own(part)
    return kept
