"""Validation of a merged recipe: every problem at once, each at its file, line and column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignzoo.core.errors import UserError, nearest
from alignzoo.interfaces.component import NAME, Component
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.compatibility import (
    check_adapters,
    check_evaluation_sets,
    check_figures,
    check_filter,
    check_references,
)
from alignzoo.recipe.components import ComponentBuilder, as_node
from alignzoo.recipe.critic import build_critic, check_critic
from alignzoo.recipe.draw_checks import check_draw, complete_draw
from alignzoo.recipe.objective_node import build_objective
from alignzoo.recipe.optimizers import OPTIMIZERS
from alignzoo.recipe.parse import Node
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.pydantic_errors import problems_of
from alignzoo.recipe.rewards import build_rewards
from alignzoo.recipe.rollout_checks import check_rollout
from alignzoo.recipe.schema import Recipe
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.recipe.selection_checks import check_selection
from alignzoo.registry.lookup import Registry, registry

REPORTERS = ["html"]
"""Of a recipe that names none."""


def validate(node: Node, name: str, classes: Sequence[type[Component]] = ()) -> tuple[Recipe, Registry]:
    """Build a recipe and the registry that knows its plugin files.

    Args:
        node: The merged recipe.
        name: The name of a recipe that gives itself none.
        classes: Classes that the recipe may name besides those of plugins.

    Raises:
        UserError: With every problem, in the order of the files' lines.
    """
    refuse_secrets(node)  # first: no other error may quote one
    plain = node.plain()
    plain.setdefault("name", name)
    problems = Problems(node)
    known = _with_plugin_files(plain.get("plugins"), problems)
    known = known.with_classes(classes) if classes else known
    reported = [key for key in ("objective", "data", "model") if plain.get(key) is not None]
    if plain.get("draw") is not None:
        complete_draw(plain, problems)
    _build_components(plain, ComponentBuilder(known, problems))
    _build_optimizer(plain, problems)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        problems.extend(problems_of(error, node, (), Recipe, reported=reported))
    else:
        check_selection(recipe, problems)
    problems.raise_if_any()
    terms = [term for _, term in recipe.objective.terms]
    serves = {term.data for term in terms}, any(term.ties for term in terms)
    sets = {name: source.serving(*serves) for name, source in recipe.eval.data.items()}
    update = {"data": recipe.data.serving(*serves), "eval": recipe.eval.model_copy(update={"data": sets})}
    return recipe.model_copy(update=update), known


def _with_plugin_files(plugins: Any, problems: Problems) -> Registry:
    """The registry with the .py files under `plugins`; their code is run here, with a warning."""
    if not isinstance(plugins, list) or not all(isinstance(path, str) for path in plugins):
        return registry()
    try:
        return registry().with_files([Path(path) for path in plugins])
    except UserError as error:
        problems.extend(error.problems)
        return registry()


def _build_components(plain: dict[str, Any], builder: ComponentBuilder) -> None:
    """Replace every node that names a component by the component.

    A component with a problem is left out.
    """
    given = plain.get("objective")
    if not isinstance(given, Objective):
        _replace(plain, "objective", None if given is None else build_objective(given, builder))
    if isinstance(plain.get("model"), dict):
        plain["model"].setdefault("name", "transformers")
    for key, kind in (("data", "data source"), ("model", "model source")):
        given = plain.get(key)
        _replace(plain, key, None if given is None else builder.build(given, (key,), kind))
    references = _build_references(plain, builder)
    check_adapters(plain.get("objective"), plain.get("model"), builder.problems)
    section = plain.get("eval")
    if isinstance(section, dict):
        for key, kind in (("metrics", "metric"), ("judges", "judge")):
            if key in section:
                section[key] = builder.build_list(section[key], ("eval", key), kind)
        if "data" in section:
            sets = scored_like(plain.get("data"), section["data"])
            section["data"] = builder.build_by_name(sets, ("eval", "data"), "data source")
            check_evaluation_sets(section["data"], builder.problems)
        check_figures(plain.get("objective"), section, builder.problems)
    drawn = plain.get("rollout") is not None
    check_references(plain.get("objective"), section, references, drawn, builder.problems)
    for name in ("rollout", "draw"):
        section = plain.get(name)
        if isinstance(section, dict) and section.get("rewards") is None:
            section.pop("rewards", None)
        elif isinstance(section, dict):
            section["rewards"] = build_rewards(section["rewards"], builder, name)
    if plain.get("draw") is not None:
        check_draw(plain, builder.problems)
    check_rollout(plain, builder.problems)
    if plain.get("critic") is not None:
        plain["critic"] = build_critic(plain["critic"], builder)
    check_critic(plain, builder)
    section = plain.get("filter")
    if isinstance(section, dict) and "metric" in section:
        section["metric"] = builder.build(as_node(section["metric"]), ("filter", "metric"), "metric")
        check_filter(plain.get("objective"), section["metric"], drawn, builder.problems)
        if section["metric"] is None:  # its problem is known
            plain["filter"] = None
    plain["reporters"] = builder.build_list(plain.get("reporters", REPORTERS), ("reporters",), "reporter")


def _build_references(plain: dict[str, Any], builder: ComponentBuilder) -> list[str]:
    """Replace the nodes under `references` by model sources, and return all names."""
    given = plain.get("references")
    if not isinstance(given, dict):
        return []
    built: dict[str, Any] = {}
    for name, node in given.items():
        at = ("references", str(name))
        if isinstance(node, dict):
            node.setdefault("name", "transformers")
            built[name] = builder.build(node, at, "model source")
        else:
            builder.problems.add(at, f"{node!r} is no model", "the recipe of a run, or {path: FOLDER}")
        if getattr(built.get(name), "lora", None):
            builder.problems.add((*at, "lora"), "a reference is not trained", "no lora")
        if not NAME.fullmatch(str(name)):
            builder.problems.add(("references", str(name)), "is not a name", "lower case letters, digits and _")
    plain["references"] = {str(name): model for name, model in built.items() if model is not None}
    return list(map(str, given))


def scored_like(data: Any, sets: Any) -> Any:
    """Return the nodes of evaluation sets with `pairs` and `train_on` of `data`.

    These fields decide what is scored of a row.
    """
    if not isinstance(sets, dict) or not isinstance(data, DataSource):
        return sets
    own = {key: getattr(data, key) for key in ("pairs", "train_on")}
    nodes = {name: as_node(item) for name, item in sets.items()}
    return {name: own | node if isinstance(node, dict) else node for name, node in nodes.items()}


def _replace(plain: dict[str, Any], key: str, component: Any | None) -> None:
    plain.pop(key, None)
    if component is not None:
        plain[key] = component


def _build_optimizer(plain: dict[str, Any], problems: Problems) -> None:
    """Validate the optimizer by its own class.

    pydantic's errors of a union name tags that are not in the recipe.
    """
    train = plain.get("train")
    given = train.get("optimizer") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(given, dict) or "name" not in given:
        return
    at = ("train", "optimizer")
    train["optimizer"] = OPTIMIZERS["sgd"](learning_rate=1)  # stands in for one with a problem
    cls = OPTIMIZERS.get(given["name"]) if isinstance(given["name"], str) else None
    if cls is None:
        close = nearest(str(given["name"]), OPTIMIZERS)
        expected = "" if close else f"one of {', '.join(OPTIMIZERS)}"
        problems.add((*at, "name"), f"no optimizer is called '{given['name']}'", expected, close)
        return
    try:
        train["optimizer"] = cls.model_validate(given)
    except ValidationError as error:
        problems.extend(problems_of(error, problems.node, at, cls))
