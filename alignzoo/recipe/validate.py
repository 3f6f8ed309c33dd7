"""From merged nodes to a validated recipe, or every problem at once, each at its file, line and column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from alignzoo.core.console import warn_once
from alignzoo.core.digests import digest_bytes
from alignzoo.core.errors import Problem, UserError, nearest
from alignzoo.recipe.components import named_nodes
from alignzoo.recipe.parse import Node
from alignzoo.recipe.pydantic_errors import mark, order, problems_of
from alignzoo.recipe.schema import Optimizer, Recipe
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.registry.loading import no_plugins
from alignzoo.registry.lookup import Registry, registry

OPTIMIZERS = {cls.model_fields["name"].default: cls for cls in get_args(get_args(Optimizer)[0])}


def validate(node: Node, name: str) -> tuple[Recipe, Registry]:
    """Build the recipe. Raises UserError with every problem, in the order of the files' lines."""
    refuse_secrets(node)  # first: no other error may quote one
    plain = node.plain()
    plain.setdefault("name", name)
    problems: list[Problem] = []
    known = registry()
    plugins = plain.get("plugins")
    if isinstance(plugins, list) and all(isinstance(path, str) for path in plugins):
        files = [Path(path) for path in plugins]
        for path in files if not no_plugins() else ():
            if path.is_file():
                digest = digest_bytes(path.read_bytes())
                warn_once(f"code of {path} is run: the recipe names it under plugins (blake2b {digest})")
        try:
            known = known.with_files(files)
        except UserError as error:
            problems += error.problems
    told = [key for key in ("objective", "data", "model") if key in plain]
    problems += named_nodes(plain, node, known)
    problems += _optimizer(plain, node)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        problems += problems_of(error, node, (), Recipe, told=told)
        recipe = None
    if problems or recipe is None:
        raise UserError(sorted(dict.fromkeys(problems), key=order))
    data = recipe.data.serving({term.data for _, term in recipe.objective.terms})
    return recipe.model_copy(update={"data": data}), known


def _optimizer(plain: dict[str, Any], node: Node) -> Iterator[Problem]:
    """Validate the optimizer by its own class: pydantic's errors for a union speak of tags that nobody wrote."""
    train = plain.get("train")
    given = train.get("optimizer") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(given, dict) or "name" not in given:
        return
    at = ("train", "optimizer")
    cls = OPTIMIZERS.get(given["name"]) if isinstance(given["name"], str) else None
    if cls is None:
        close = nearest(str(given["name"]), OPTIMIZERS)
        expected = "" if close else f"one of {', '.join(OPTIMIZERS)}"
        yield Problem(
            f"train.optimizer.name: no optimizer is called '{given['name']}'",
            mark(node, (*at, "name")),
            expected,
            close,
        )
        train["optimizer"] = OPTIMIZERS["sgd"](learning_rate=1)
        return
    try:
        train["optimizer"] = cls.model_validate(given)
    except ValidationError as error:
        train["optimizer"] = OPTIMIZERS["sgd"](learning_rate=1)
        yield from problems_of(error, node, at, cls)
