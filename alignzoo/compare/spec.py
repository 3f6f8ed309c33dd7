"""The specification of a comparison, from the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from alignzoo.interfaces.component import Strict
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.merge import resolve_paths
from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin, from_value, read_file
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.pydantic_errors import problems_of
from alignzoo.recipe.sampling import check_temperature
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.registry.lookup import registry


class Sampling(Strict):
    """Settings of the sampled replies.

    Every run answers the same held-out prompts of the test split with the same random streams.
    """

    prompts: int = Field(128, ge=0, description="number of prompts, evenly spaced over the test split")
    validation_prompts: int = Field(
        0, ge=0, description="further prompts, of the validation split: a figure of replies can then choose grid points"
    )
    tokens: int = Field(64, ge=1, description="most new tokens of a reply")
    temperature: float = Field(
        1.0, ge=0, description="sampling temperature; 0 is greedy; the KL is the policy's only at 1"
    )
    seed: int = Field(0, ge=0, description="seed of the random streams, one for each prompt")

    @field_validator("temperature")
    @classmethod
    def _divides_logits(cls, value: float) -> float:
        return check_temperature(value)


class Comparison(Strict):
    """Recipes to compare: the same data, start, seeds and tuning budget for each."""

    name: str = Field(
        "compare", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="name of the folder"
    )
    recipes: tuple[str, ...] = Field(min_length=1, description="recipes, each a row of the table")
    overlays: tuple[str, ...] = Field((), alias="with", description="overlays on every recipe")
    overrides: tuple[str, ...] = Field((), alias="set", description="key=value overrides of every recipe")
    seeds: int = Field(3, ge=1, description="runs of each configuration, from the recipe's seed upwards")
    search_seeds: int | None = Field(
        None, ge=1, description="runs of each grid point before one is chosen, which then gets all seeds; null: `seeds`"
    )
    grid: dict[str, tuple[Any, ...]] = Field({}, description="key -> values to choose from on the validation split")
    rows: dict[str, tuple[Any, ...] | dict[str, dict[str, tuple[Any, ...]]]] = Field(
        {}, description="key -> values, each a row of its own; or value -> that row's own grid, on top of `grid`"
    )
    baseline: str | None = Field(
        None, description="row that the others are compared with; default: the first non-start"
    )
    select: str = Field("preference_accuracy", description="figure that grid points are chosen by")
    judges: tuple[Any, ...] = Field((), description="judges of the sampled replies, as eval.judges in a recipe")
    samples: Sampling = Field(Sampling(), description="how replies are sampled")
    allow_different_data: bool = Field(False, description="allow rows on different data or from different starts")

    @model_validator(mode="after")
    def _has_values(self) -> Comparison:
        for name, given in (("grid", self.grid), ("rows", self.rows)):
            for key, values in given.items():
                if not values:
                    raise ValueError(f"{name}: '{key}' has no values")
                for value, own in values.items() if isinstance(values, dict) else ():
                    if empty := next((other for other, some in own.items() if not some), None):
                        raise ValueError(f"{name}: '{empty}' of '{key}: {value}' has no values")
        return self

    @property
    def searched(self) -> int:
        """Number of seeds of every grid point, on which one is chosen."""
        return self.seeds if self.search_seeds is None else self.search_seeds

    @model_validator(mode="after")
    def _seeds_are_searched(self) -> Comparison:
        if self.searched > self.seeds:
            raise ValueError(f"search_seeds is {self.searched}, more than seeds, {self.seeds}")
        return self


RECIPE_KEYS = ("recipes", "with")
"""Keys that hold recipes, relative to the file that names them."""


def read_comparison(path: Path) -> tuple[Node, Comparison]:
    """Read a comparison file and return its nodes and their validated content.

    Raises:
        UserError: With every problem at its line.
    """
    node = resolve_paths(read_file(path), path.parent)
    refuse_secrets(node)
    for key in RECIPE_KEYS:
        for item in node.value[key].value if key in node.value and isinstance(node.value[key].value, list) else ():
            sibling = path.parent / item.value if isinstance(item.value, str) else None
            if sibling is not None and sibling.is_file():
                item.value = str(sibling)
    plain = node.plain()
    plain.setdefault("name", path.stem)
    if isinstance(plain.get("set"), dict):
        plain["set"] = [f"{key}={value}" for key, value in plain["set"].items()]
    for key in ("grid", "rows"):
        if isinstance(plain.get(key), dict):
            plain[key] = {name: _values(v, own_grids=key == "rows") for name, v in plain[key].items()}
    return node, validate_comparison(plain, node)


def _values(written: Any, own_grids: bool = False) -> Any:
    """Return a list of values, or value -> grid of lists; a single value needs no brackets."""
    if own_grids and isinstance(written, dict):
        return {
            value: {key: _values(some) for key, some in grid.items()} if isinstance(grid, dict) else grid or {}
            for value, grid in written.items()
        }
    return written if isinstance(written, list) else [written]


def validate_comparison(plain: dict[str, Any], node: Node) -> Comparison:
    """Build a comparison from plain values.

    Raises:
        UserError: Values are wrong. It has every problem, at its line in `node`.
    """
    try:
        return Comparison.model_validate(plain)
    except ValidationError as error:
        problems = Problems(node)
        problems.extend(problems_of(error, node, (), Comparison))
        problems.raise_if_any()
        raise


def is_comparison(paths: Sequence[str]) -> bool:
    """Return True if the only path given is a comparison file: it has the key `recipes`."""
    if len(paths) != 1 or not Path(paths[0]).is_file():
        return False
    return "recipes" in read_file(Path(paths[0])).value


def make_judges(given: Sequence[Any], node: Node) -> list[Judge]:
    """Return the judges of a comparison.

    Args:
        given: Names, or mappings with `name` and the judge's fields.
        node: Where they were written, for error messages.

    Raises:
        UserError: With every problem.
    """
    refuse_secrets(from_value({"judges": list(given)}, Origin(COMMAND_LINE)))
    problems = Problems(node)
    judges = ComponentBuilder(registry(), problems).build_list(list(given), ("judges",), "judge")
    problems.raise_if_any()
    return list(judges)
