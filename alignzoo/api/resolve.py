"""Resolve a recipe whose data, model, tokenizer or objective are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from alignzoo.api.inputs import model_folder, rows_path, tokenizer_folder
from alignzoo.core.errors import UserError
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.composition import Modified, Sum
from alignzoo.recipe.load import load_with
from alignzoo.recipe.parse import read_overrides
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe
from alignzoo.registry.lookup import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Given = str | Path | Mapping[str, Any] | Recipe | Resolved
"""A recipe: a file, a run folder, a shipped recipe's name, a dictionary, a `Recipe` or a loaded one."""


def resolve(
    recipe: Given,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    *,
    data: Any = None,
    model: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    objective: Objective | str | Mapping[str, Any] | Sequence[Any] | None = None,
    in_place: bool = False,
) -> Resolved:
    """Load a recipe with what is in memory in place of its sections.

    Args:
        recipe: The recipe. A dictionary may have rows, a model and an objective in its sections.
        overrides: As for `load_recipe`. They come last.
        overlays: As for `load_recipe`.
        data: Rows: a list of dictionaries, a `datasets.Dataset`, a DataFrame, or a mapping of `train` and `test` to
            these; or a file or folder, or a data source.
        model: The policy before its first step, which is not changed; or a folder or hub id.
        tokenizer: Its tokenizer; by default the one of the model's name.
        objective: An objective, or what a recipe writes under `objective`.
        in_place: Use a model in memory as it is, in place of any start that the recipe has. It is written to files, as
            for a run, only where other runs need it.

    Raises:
        UserError: As `load_recipe`, or what is given can't be used.
    """
    if isinstance(recipe, Mapping):
        recipe = dict(recipe)
        if not _is_section(recipe.get("data")):
            own = recipe.pop("data")
            data = own if data is None else data
        if (own := model_in(recipe)) is not None:
            del recipe["model"]
            model = own if model is None else model
    parts = _data(data) | _objective(objective)
    given = (recipe, objective, overrides, *(one for one in (data, model) if isinstance(one, BaseModel)))
    classes = [type(one) for one in _components(given) if _is_new(type(one))]
    words = read_overrides(overrides)
    if in_place and is_in_memory(model):
        start = {"model.from": None} | _model(model, tokenizer, save=False)
        resolved = load_with(recipe, [*read_overrides(parts | start), *words], overlays, classes)
        if not resolved.needs:
            return resolved
        parts["model.from"] = None
    return load_with(recipe, [*read_overrides(parts | _model(model, tokenizer)), *words], overlays, classes)


def model_in(recipe: Given) -> Any:
    """Return the model, or its name, that a dictionary has under `model`; else None."""
    own = recipe.get("model") if isinstance(recipe, Mapping) else None
    return own if is_in_memory(own) or isinstance(own, str | Path) else None


def is_in_memory(model: Any) -> bool:
    """Return True for a model, and False for the name of one or a recipe's section."""
    return not (model is None or isinstance(model, str | Path | Mapping | ModelSource))


def in_memory_overrides(data: Any, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the overrides that put data and a model in place of a recipe's own."""
    return _data(data) | _model(model, tokenizer)


def _is_section(data: Any) -> bool:
    """Return True for what a recipe can have under `data`, and False for rows."""
    if isinstance(data, Mapping):
        return any(value is None or isinstance(value, str | int | float | Mapping) for value in data.values())
    return data is None or isinstance(data, str | DataSource)


def _data(data: Any) -> dict[str, Any]:
    """Return the overrides for rows, a file, or what a recipe has under `data`."""
    if data is None:
        return {}
    if not isinstance(data, str) and _is_section(data):
        return {"data": data}
    if isinstance(data, str) and not (Path(data).suffix or "/" in data or Path(data).exists()):
        return {"data": data}
    path = data if isinstance(data, str | Path) else rows_path(data)
    return {"data.name": "files", "data.path": str(path)}


def _model(model: Any, tokenizer: Any, save: bool = True) -> dict[str, Any]:
    """Return the overrides for a model and its tokenizer."""
    found: dict[str, Any] = {}
    if isinstance(model, Mapping | ModelSource):
        found = {"model": model}
    elif isinstance(model, str | Path):
        found = {"model.path": str(model), "model.tokenizer": None}
    elif is_in_memory(model):
        folder, dtype = model_folder(model, save)
        if tokenizer is None:
            tokenizer = getattr(model, "name_or_path", "") or _no_tokenizer()
        found = {"model.path": str(folder), "model.dtype": dtype, "model.revision": None}
    if tokenizer is not None:
        given = isinstance(tokenizer, str | Path)
        found["model.tokenizer"] = str(tokenizer) if given else str(tokenizer_folder(tokenizer))
    return found


def _no_tokenizer() -> NoReturn:
    raise UserError(
        "the model has no name that leads to its tokenizer", where="tokenizer", expected="tokenizer=..., beside model"
    )


def _objective(objective: Any) -> dict[str, Any]:
    """Return the override for an objective, without the modifiers of the recipe's own."""
    if not isinstance(objective, Objective):
        return {} if objective is None else {"objective": objective}
    node = objective.to_recipe()
    return {"objective": {"modifiers": [], **node} if isinstance(node, dict) else node}


def _components(value: Any) -> Iterator[Component]:
    """Yield the components in a recipe or a part of one, at any depth."""
    if isinstance(value, Component):
        yield value
    if isinstance(value, BaseModel):
        yield from (one for _, field in value for one in _components(field))
    elif isinstance(value, Mapping):
        yield from (one for field in value.values() for one in _components(field))
    elif isinstance(value, list | tuple):
        yield from (one for item in value for one in _components(item))


def _is_new(cls: type[Component]) -> bool:
    """Return True for a class that no plugin and no plugin file registers."""
    if cls in (Modified, Sum) or cls.__module__.startswith("alignzoo_file_"):
        return False
    return not registry().has(cls)
