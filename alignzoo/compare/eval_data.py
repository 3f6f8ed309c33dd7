"""Evaluation sets that the command line names: data files, sources, parts of recipes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.core.errors import UserError
from alignzoo.data.sources.readers import SUFFIXES
from alignzoo.interfaces.data_source import LONGEST_NAME
from alignzoo.recipe.compatibility import OF_TRAINING
from alignzoo.recipe.components import as_node
from alignzoo.recipe.find import find_recipe
from alignzoo.recipe.merge import read_with_bases
from alignzoo.recipe.parse import COMMAND_LINE, Node, parse

RECIPES = (".yaml", ".yml")


def read_sets(given: Sequence[str], whole: bool = False) -> dict[str, dict[str, Any]]:
    """Return the data source of each set that was named, as a recipe writes it.

    Args:
        given: Data files, folders and patterns; recipes, whose `data` and `eval.data` are taken; or data sources as
            a recipe writes them, such as `{name: hub, path: ORG/DATASET}`.
        whole: Of a recipe, take `data` alone and with the fields that divide it into training and held-out rows.

    Raises:
        UserError: A recipe has no data, or two sets have one name.
    """
    sets: dict[str, dict[str, Any]] = {}
    for word in given:
        for name, source in _sets_of(word, whole).items():
            if name in sets:
                raise UserError(
                    f"two evaluation sets are called '{name}'", where="--data", expected="files of two names"
                )
            sets[name] = source
    return sets


def _sets_of(word: str, whole: bool) -> dict[str, dict[str, Any]]:
    if word.lstrip().startswith("{"):
        node = parse(word, COMMAND_LINE)
        source = node.plain() if node is not None else {}
        return {_name_of(str(source.get("path") or source.get("name") or "data")): source}
    if not word.strip():
        raise UserError("no file is given", where="--data", expected="a data file, a recipe, or {name: ..., fields}")
    if word.endswith(RECIPES):
        return _of_recipe(word, whole)
    return {_name_of(word): {"name": "files", "path": str(Path(word).absolute())}}


def _of_recipe(word: str, whole: bool) -> dict[str, dict[str, Any]]:
    """Return the sets of a recipe or of a part of one: its data, and its evaluation sets.

    Fields of the data that describe training rows are left out, unless `whole` asks for the data with them.
    """
    node = read_with_bases(find_recipe(word))
    sets: dict[str, dict[str, Any]] = {}
    if (data := node.value.get("data")) is not None:
        source = as_node(data.plain())
        if not isinstance(source, dict):
            raise UserError("`data` is no data source", where=str(data.origin), expected="{name: ..., fields}")
        sets[_name_of(word)] = {key: value for key, value in source.items() if whole or key not in OF_TRAINING}
    section = None if whole else node.value.get("eval")
    further = section.value.get("data") if section is not None and isinstance(section.value, dict) else None
    if isinstance(further, Node) and isinstance(further.value, dict):
        sets |= {name: as_node(one.plain()) for name, one in further.value.items() if one.value is not None}
    if not sets:
        raise UserError("the recipe has no data", where=word, expected="a section `data`, or `eval: {data: ...}`")
    return sets


def _name_of(word: str) -> str:
    """Return a name for the evaluation set of a file: its name without the suffix."""
    name = re.split(r"[/\\]", word.rstrip("/\\"))[-1]
    suffix = next((one for one in sorted((*SUFFIXES, *RECIPES), key=len, reverse=True) if name.endswith(one)), "")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name.removesuffix(suffix)).lstrip("_.-")[:LONGEST_NAME]
    return {"": "data", "train": "train_rows", "held_out": "held_out_rows"}.get(name, name)
