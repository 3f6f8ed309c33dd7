"""What a comparison may say: on the command line, or in a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.merge import resolve_paths
from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin, from_value, read_file
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.pydantic_errors import problems_of
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.registry.lookup import registry


class Sampling(BaseModel):
    """Replies to held-out prompts of the test split, the same prompts and random streams for every run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: int = Field(128, ge=0, description="how many, evenly spaced over the test split")
    tokens: int = Field(64, ge=1, description="at most so many new tokens a reply")
    temperature: float = Field(1.0, ge=0, description="0 is greedy; the KL is that of the policy only at 1")
    seed: int = Field(0, ge=0, description="of the random streams, one a prompt")


class Comparison(BaseModel):
    """Recipes side by side: the same data, start, seeds and tuning budget for each."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field("compare", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="of the folder")
    recipes: tuple[str, ...] = Field(min_length=1, description="recipes, each a row of the table")
    overlays: tuple[str, ...] = Field((), alias="with", description="recipes laid on top of every one")
    overrides: tuple[str, ...] = Field((), alias="set", description="key=value for every one")
    seeds: int = Field(3, ge=1, description="runs of each configuration, with the recipe's seed and those after it")
    grid: dict[str, tuple[Any, ...]] = Field({}, description="key -> values to choose from on the validation split")
    rows: dict[str, tuple[Any, ...]] = Field({}, description="key -> values that are rows of their own")
    baseline: str | None = Field(None, description="the row that others are compared with; by default the second")
    select: str = Field("preference_accuracy", description="what the best grid point is chosen by")
    judges: tuple[Any, ...] = Field((), description="who reads the sampled replies; as eval.judges in a recipe")
    samples: Sampling = Field(Sampling(), description="how replies are drawn")
    allow_different_data: bool = Field(False, description="rows on different data, or from different starts")


PLACES = ("recipes", "with")
"""Keys that hold recipes: relative to the file that names them."""


def read_comparison(path: Path) -> tuple[Node, Comparison]:
    """A comparison file, and what it says. Raises UserError with every problem at its line."""
    node = resolve_paths(read_file(path), path.parent)
    refuse_secrets(node)
    for key in PLACES:
        for item in node.value[key].value if key in node.value and isinstance(node.value[key].value, list) else ():
            beside = path.parent / item.value if isinstance(item.value, str) else None
            if beside is not None and beside.is_file():
                item.value = str(beside)
    plain = node.plain()
    plain.setdefault("name", path.stem)
    if isinstance(plain.get("set"), dict):
        plain["set"] = [f"{key}={value}" for key, value in plain["set"].items()]
    for key in ("grid", "rows"):
        if isinstance(plain.get(key), dict):
            plain[key] = {name: v if isinstance(v, list) else [v] for name, v in plain[key].items()}
    return node, validate_comparison(plain, node)


def validate_comparison(plain: dict[str, Any], node: Node) -> Comparison:
    """Build a comparison from plain values. Raises UserError with every problem, at its line in `node`."""
    try:
        return Comparison.model_validate(plain)
    except ValidationError as error:
        problems = Problems(node)
        problems.extend(problems_of(error, node, (), Comparison))
        problems.raise_if_any()
        raise


def is_comparison(paths: Sequence[str]) -> bool:
    """Whether the one path given is a comparison file and not a recipe: it has `recipes`."""
    if len(paths) != 1 or not Path(paths[0]).is_file():
        return False
    return "recipes" in read_file(Path(paths[0])).value


def make_judges(given: Sequence[Any], node: Node) -> list[Judge]:
    """Names, or {name: ..., fields}; `node` is where they were written. Raises UserError with every problem."""
    refuse_secrets(from_value({"judges": list(given)}, Origin(COMMAND_LINE)))
    problems = Problems(node)
    judges = ComponentBuilder(registry(), problems).build_list(list(given), ("judges",), "judge")
    problems.raise_if_any()
    return list(judges)
