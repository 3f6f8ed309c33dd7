"""Loading of recipes: parse, extend, overlay, override, validate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignzoo.core.door.file_errors import of_os_error
from alignzoo.core.errors import Problem, UserError
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.model_source import ON_TOP
from alignzoo.recipe.draw_layers import (
    check_draws,
    draws_data,
    is_first_data,
    is_of_reading,
    is_reading,
    of_draw,
    without_first_data,
)
from alignzoo.recipe.find import find_recipe, shipped_recipes
from alignzoo.recipe.merge import apply, check_beside, is_base, merge, read_with_bases, with_bases, without_base
from alignzoo.recipe.needs import inherited_overlay, inherited_overrides, judges_of, recipe_named, runs_named
from alignzoo.recipe.parse import PYTHON, Node, Origin, from_value, read_overrides
from alignzoo.recipe.resolved import REFERENCE, START, Resolved
from alignzoo.recipe.schema import Recipe
from alignzoo.recipe.validate import validate

MOST_RUNS = 10
"""Limit of a chain of runs that start from each other."""

__all__ = ["Origin", "Recipe", "Resolved", "find_recipe", "load_recipe", "shipped_recipes"]


def load_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe | Resolved,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    classes: Sequence[type[Component]] = (),
    *,
    allow_missing: bool = False,
) -> Resolved:
    """Load a recipe and the recipes that it needs.

    Args:
        recipe: A file, a run folder or the name of a shipped recipe; or a recipe in Python: a dictionary of its
            sections, in which paths are relative to the working directory, a `Recipe`, or a loaded one.
        overrides: `{"objective.beta": 0.2}` or `["objective.beta=0.2"]`, applied last.
        overlays: Recipes to merge on top, in order.
        classes: Classes of components that no plugin registers, which the recipe may name.
        allow_missing: Leave out needed runs whose recipes are gone, as those of a finished run may be.

    Raises:
        UserError: With every problem found, each at its file, line and column.
    """
    return load_with(recipe, read_overrides(overrides), overlays, classes, allow_missing=allow_missing)


def load_with(
    recipe: str | Path | Mapping[str, Any] | Recipe | Resolved,
    overrides: list[tuple[list[str], Node]],
    overlays: Sequence[str | Path] = (),
    classes: Sequence[type[Component]] = (),
    *,
    allow_missing: bool = False,
) -> Resolved:
    """Load a recipe as `load_recipe` does, with overrides that are read."""
    if isinstance(recipe, Resolved):
        classes = (*recipe.registry.in_memory, *classes)
    check_overlays(overlays)
    try:
        layers = [read_with_bases(find_recipe(overlay)) for overlay in overlays]
        if isinstance(recipe, str | Path):
            path = find_recipe(recipe)
            return _load(path, read_with_bases(path), layers, overrides, classes, allow_missing)
    except OSError as error:  # such as a name that is too long for a file
        raise of_os_error(error, str(recipe)) from None
    if isinstance(recipe, Resolved):
        return _load(recipe.path, deepcopy(recipe.node), layers, overrides, classes, allow_missing)
    if not isinstance(recipe, Mapping | Recipe):
        raise UserError(
            f"a {type(recipe).__name__} is no recipe", where=PYTHON, expected="a path, a name, or a dictionary"
        )
    node = with_bases(from_value(recipe, Origin(PYTHON)), Path.cwd())
    return _load(Path(_objective_name(node) or "run"), node, layers, overrides, classes, allow_missing)


def check_overlays(overlays: Any) -> None:
    """Raise UserError for overlays that are no list of files, such as one file."""
    if not isinstance(overlays, list | tuple) or not all(isinstance(one, str | Path) for one in overlays):
        raise UserError(f"overlays are {overlays!r:.60}", where=PYTHON, expected="a list of recipe files")


def _load(
    path: Path, node: Node, overlays: list[Node], overrides: list[tuple[list[str], Node]],
    classes: Sequence[type[Component]], allow_missing: bool, chain: tuple[Path, ...] = (),
) -> Resolved:  # fmt: skip
    if path in chain:
        circle = " -> ".join(part.name for part in (*chain[chain.index(path) :], path))
        raise UserError(f"recipes need each other's runs in a circle: {circle}", where=str(path))
    if len(chain) > MOST_RUNS:
        raise UserError(
            "the recipe needs too many runs, each of which needs the next", where=str(chain[0]),
            expected=f"at most {MOST_RUNS}",
        )  # fmt: skip
    own = _objective_name(node)
    follows = _names_a_run("model", node, overlays, overrides)
    if follows:
        _no_base_beside_from(node)
    reads = _names_a_run("data", node, overlays, overrides)
    mine = [without_base(overlay) for overlay in overlays] if follows else overlays
    mine = [without_first_data(overlay) for overlay in mine] if reads else mine
    for overlay in [of_draw(overlay) for overlay in mine] if draws_data(node) else mine:
        node = merge(node, overlay)
    kept = [
        (key, value) for key, value in overrides
        if not (follows and key[0] == "model" and _of_first_policy(key)) and not (reads and is_first_data(key))
        and not (chain and draws_data(node) and is_of_reading(key))
    ]  # fmt: skip
    node = apply(node, kept)
    check_beside(node)
    name = _objective_name(node)
    default = path.stem if not own or not name or name == own else f"{path.stem}-{name.rpartition('/')[2]}"
    with _needed(path, chain):
        recipe, registry = validate(node, default, classes)
    named = runs_named(recipe)
    below = [inherited_overlay(overlay, named) for overlay in overlays]
    passed = inherited_overrides([one for one in overrides if not (reads and is_reading(one[0]))], named)
    found = {key: _find_needed(node, key, other, allow_missing) for key, other in named.items()}
    needs = {
        key: _load(one, read_with_bases(one), below, passed, classes, allow_missing, (*chain, path))
        for key, one in found.items()
        if one
    }
    check_draws(recipe, needs, str(node.origin))
    if START in needs:
        recipe = _started(recipe, needs[START].recipe, str(node.origin))
    _judged(recipe, needs, str(node.origin))
    runs = {name: needs[key].recipe for name in recipe.references if (key := REFERENCE.format(name)) in needs}
    return Resolved(_compared(recipe, runs, str(node.origin)), path, node, needs, registry)


def _find_needed(node: Node, key: str, named: str, allow_missing: bool) -> Path | None:
    """Return the path of a needed run's recipe, or None where it may be missing and is."""
    try:
        return recipe_named(node, key, named)
    except UserError:
        if not allow_missing:
            raise
        return None


@contextmanager
def _needed(path: Path, chain: Sequence[Path]) -> Iterator[None]:
    """Add to problems that they are of a needed run, which inherits overlays and overrides."""
    try:
        yield
    except UserError as error:
        if not chain:
            raise
        hint = f"in {path.name}, whose run {chain[-1].name} needs and which inherits what is merged on top of it"
        raise UserError([one if one.hint else replace(one, hint=hint) for one in error.problems]) from None


def _compared(recipe: Recipe, runs: Mapping[str, Recipe], where: str) -> Recipe:
    """Let the policies of runs be named references. Raises UserError for a reward model."""
    references = dict(recipe.references)
    for name, run in runs.items():
        if run.objective.head == "scalar":
            raise UserError(
                f"references.{name}: {run.name} trains a reward model, which has no log-probs", where=where,
                expected="a recipe whose objective trains a language model",
            )  # fmt: skip
        if run.model.runs_code:
            references[name] = references[name].model_copy(update={"trust_remote_code": True})
    return recipe.model_copy(update={"references": references})


def _judged(recipe: Recipe, needs: Mapping[str, Resolved], where: str) -> None:
    """Raise UserError for a judge's run that does not give exactly one score.

    Such a run trains no reward model, or several outputs of which none is named.
    """
    for at, judge in judges_of(recipe).items():
        for key in (f"{at}.{field}" for field in judge.needs_runs):
            if key not in needs:
                continue
            objective = needs[key].recipe.objective
            if objective.head != "scalar":
                raise UserError(
                    f"{key}: {needs[key].recipe.name} trains a language model, which gives no scores", where=where,
                    expected="a recipe whose objective trains a reward model, such as bradley_terry",
                )  # fmt: skip
            if len(objective.outputs) > 1 and getattr(judge, "label", None) is None:
                raise UserError(
                    f"{at}.label: {needs[key].recipe.name} trains {len(objective.outputs)} outputs", where=where,
                    expected=f"the one that is the score, of {', '.join(objective.outputs)}",
                )  # fmt: skip


def _started(recipe: Recipe, start: Recipe, where: str) -> Recipe:
    """Continue a recipe from the policy of `start`.

    Raises:
        UserError: `start` trains a reward model, and the recipe trains a language model.
    """
    if start.objective.head == "scalar" != recipe.objective.policy_head:
        raise UserError(
            f"model.from: {start.name} trains a reward model, and {recipe.name} trains a language model", where=where,
            expected="a recipe whose objective trains a language model",
        )  # fmt: skip
    if start.model.runs_code:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"trust_remote_code": True})})
    return recipe


def _names_a_run(section: str, node: Node, overlays: list[Node], overrides: list[tuple[list[str], Node]]) -> bool:
    """Return True if `model.from`, or `data.from`, is set once everything is merged."""
    found: Any = None
    for layer in (node, *overlays):
        own = layer.value.get(section)
        if own is not None and isinstance(own.value, dict) and "from" in own.value:
            found = own.value["from"].value
    for key, value in overrides:
        if key == [section, "from"]:
            found = value.value
    return bool(found)


def _objective_name(node: Node) -> str:
    """Return the objective's name, or "" for none or several.

    A run with another objective than its recipe's own is named after both.
    """
    objective = node.value.get("objective")
    name = objective.value.get("name") if objective is not None and isinstance(objective.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else ""


def _of_first_policy(key: Sequence[str]) -> bool:
    return is_base(key) and key[1] not in ("dtype", "trust_remote_code", *ON_TOP)


def _no_base_beside_from(node: Node) -> None:
    model = node.value.get("model")
    if model is None or not isinstance(model.value, dict) or "from" not in model.value:
        return
    problems = [
        Problem(f"model.{key}: it describes the first policy; move it to the recipe that model.from names",
                where=str(model.keys[key]))
        for key in model.value if _of_first_policy(("model", key)) and model.value[key].value is not None
    ]  # fmt: skip
    if problems:
        raise UserError(problems)
