"""Needed runs of a recipe: the fields that name them, and the values that they inherit.

A needed run inherits whole overlays, and of the overrides those of `data`, `tokens` and `model`, always without the
keys that each run keeps for itself (`OWN`) and the keys that name recipes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from alignzoo.interfaces.judge import Judge
from alignzoo.interfaces.model_source import ON_TOP
from alignzoo.recipe.find import find_recipe
from alignzoo.recipe.parse import COMMAND_LINE, Node
from alignzoo.recipe.schema import Recipe

INHERITED = ("data", "tokens", "model")
"""Sections whose overrides a needed run inherits."""
OWN = ("objective", "references", "filter", "name", "reporters", "rollout", "critic", "eval.metrics", "eval.judges")
"""Keys that each run keeps for itself."""
NOISE = ("label_noise", "label_noise_seed")
"""Further ones, of `data` and of the sources that it mixes: label noise belongs to the preferences of one run."""
Overrides = Sequence[tuple[list[str], Node]]


def runs_named(recipe: Recipe) -> dict[str, str]:
    """Return dotted key -> recipe, for every field that names a recipe whose run is needed."""
    terms = recipe.objective.terms
    alone = terms[0][1] is recipe.objective  # a list of one is a sum, whose field is objective.0
    objectives = {"objective" if alone else f"objective.{i}": term for i, (_, term) in enumerate(terms)}
    sources = {"data": recipe.data} | {f"eval.data.{name}": source for name, source in recipe.eval.data.items()}
    mixed = {f"{at}.of.{i}": part for at, source in sources.items() for i, part in enumerate(getattr(source, "of", ()))}
    references = {f"references.{name}": model for name, model in recipe.references.items()}
    pieces: dict[str, Any] = {
        "model": recipe.model,
        **references,
        **({"critic": recipe.critic.model} if recipe.critic and recipe.critic.model else {}),
        **sources,
        **mixed,
        **objectives,
        **judges_of(recipe),
    }
    return {f"{at}.{key}": value for at, piece in pieces.items() for key, value in _named(piece) if value}


def judges_of(recipe: Recipe) -> dict[str, Judge]:
    """Return dotted key -> judge, for every reward and every judge of the evaluation."""
    rewards = recipe.rollout.rewards if recipe.rollout else ()
    found = {f"rollout.rewards.{n}": reward.judge for n, reward in enumerate(rewards)}
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
        _remove_noise(result.value["data"])
    return result


def _remove_noise(node: Node) -> None:
    """Remove label noise from a data source and from the sources that it mixes."""
    if isinstance(node.value, dict):
        for key in NOISE:
            node.value.pop(key, None)
        for child in node.value.values():
            _remove_noise(child)
    elif isinstance(node.value, list):
        for child in node.value:
            _remove_noise(child)


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
        and not (path[0] == "data" and path[-1] in NOISE)
    ]  # fmt: skip
    for path, value in kept:
        if path[0] == "data":
            _remove_noise(value)
    return kept
