"""Overlays and overrides of recipes with `draw`, and of recipes that read draws.

An overlay such as scale/smallest is merged on top of every recipe of a chain. Of a recipe with `draw` it has the
sections that such a recipe has. Of a recipe with `data.from` it has the keys of reading: the others describe the first
data, and go to the recipe that draws. Overrides of the keys of reading go no further, so that recipes which read the
same draws in several ways share their runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from alignzoo.core.errors import UserError
from alignzoo.interfaces.data_source import DataSource
from alignzoo.recipe.draw_checks import OF_READING, OF_TRAIN, SECTIONS
from alignzoo.recipe.needs import sources_of
from alignzoo.recipe.parse import Node
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe

READING = ("from", "labels", *(info.alias or key for key, info in DataSource.model_fields.items()))
"""Keys of `data` that a recipe with `data.from` has for itself."""


def draws_data(node: Node) -> bool:
    """Return True for a recipe with a section `draw`."""
    section = node.value.get("draw") if isinstance(node.value, dict) else None
    return section is not None and section.value is not None


def of_draw(overlay: Node) -> Node:
    """Return the part of an overlay that a recipe with `draw` takes."""
    result = deepcopy(overlay)
    if not isinstance(result.value, dict):
        return result
    result.value = {key: child for key, child in result.value.items() if key in SECTIONS}
    _keep(result, "train", [key for key in _keys(result, "train") if key in OF_TRAIN])
    _keep(result, "data", [key for key in _keys(result, "data") if key not in OF_READING])
    if not _keys(result, "train"):
        result.value.pop("train", None)
    return result


def without_first_data(overlay: Node) -> Node:
    """Return an overlay without the keys of `data` that describe the first data."""
    result = deepcopy(overlay)
    if "from" not in _keys(result, "data"):
        _keep(result, "data", [key for key in _keys(result, "data") if key in READING])
    return result


def is_first_data(key: Sequence[str]) -> bool:
    """Return True for an override of a key of `data` that describes the first data of a chain."""
    return key[0] == "data" and len(key) > 1 and key[1] not in READING


def is_reading(key: Sequence[str]) -> bool:
    """Return True for an override of a key of `data` that describes how draws are read."""
    return key[0] == "data" and len(key) > 1 and key[1] in READING


def is_of_reading(key: Sequence[str]) -> bool:
    """Return True for an override of a key of `data` that a recipe with `draw` does not have."""
    return key[0] == "data" and len(key) > 1 and key[1] in OF_READING


def _keys(node: Node, section: str) -> list[str]:
    below = node.value.get(section) if isinstance(node.value, dict) else None
    return list(below.value) if below is not None and isinstance(below.value, dict) else []


def _keep(node: Node, section: str, keys: Sequence[str]) -> None:
    """Leave these keys of a section alone."""
    if section in (node.value or {}) and isinstance(node.value[section].value, dict):
        below = node.value[section]
        below.value = {key: child for key, child in below.value.items() if key in keys}


def check_draws(recipe: Recipe, needs: Mapping[str, Resolved], where: str) -> None:
    """Check that runs with `draw` are read as data, and that no other run is.

    Raises:
        UserError: A run that makes a data set is named as a model, or a run that trains as drawn data.
    """
    sources = sources_of(recipe)
    for key, need in needs.items():
        source = sources.get(key.rpartition(".")[0])
        if need.recipe.draw is not None and (source is None or not source.reads_draws):
            raise UserError(
                f"{key}: {need.recipe.name} makes a data set and no model", where=where,
                expected="a recipe with an objective" if source is None else "data: {from: RECIPE}",
            )  # fmt: skip
        if need.recipe.draw is None and source is not None and source.reads_draws:
            raise UserError(
                f"{key}: {need.recipe.name} trains a model and draws no data", where=where,
                expected="a recipe with a section `draw`",
            )  # fmt: skip
