"""The specification of a comparison, from the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_serializer, field_validator, model_validator

from alignzoo.core.errors import UserError, nearest
from alignzoo.interfaces.component import NoEffect, Strict
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.merge import resolve_paths
from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin, from_value, read_file
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.pydantic_errors import problems_of
from alignzoo.recipe.sampling import check_temperature
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.registry.lookup import registry

MOST_DRAWS = 4096
"""Replies to one prompt, of which the best is measured."""


class Sampling(Strict):
    """Settings of the sampled replies.

    Every run answers the same held-out prompts of the test split with the same random streams.
    """

    prompts: int = Field(128, ge=0, description="number of prompts, evenly spaced over the test split")
    validation_prompts: int = Field(
        0, ge=0, description="further prompts, of the validation split: a figure of replies can then choose grid points"
    )
    tokens: int = Field(64, ge=1, description="most new tokens of a reply")
    temperature: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        description="sampling temperature, or a list: the table shows 1 if it is listed, else the first; 0 is greedy; "
        "the KL is measured at 1 alone",
    )
    seed: int = Field(0, ge=0, description="seed of the random streams, one for each prompt")

    @field_validator("temperature", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("temperature")
    @classmethod
    def _divide_logits(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if twice := next((one for n, one in enumerate(value) if one in value[:n]), None):
            raise ValueError(f"{twice:g} is listed twice")
        return tuple(map(check_temperature, value))

    @field_serializer("temperature")
    def _as_written(self, value: tuple[float, ...]) -> float | list[float]:
        return value[0] if len(value) == 1 else list(value)

    @property
    def main(self) -> float:
        """The temperature of the table's own columns: 1 if it is listed, else the first."""
        return 1.0 if 1.0 in self.temperature else self.temperature[0]

    def at(self, temperature: float) -> Sampling:
        """Return the same settings with one temperature."""
        return self.model_copy(update={"temperature": (temperature,)})


class FrontierConfig(Strict):
    """Frontiers of reward against KL along training, as in figure 2 of the DPO paper."""

    reward: str = Field(description="judge in `eval.judges` of every recipe, whose score is the reward")
    kl: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0, 2.0, 4.0, 8.0), min_length=1, description="KL divergences to the start, in nats, at which they are read"
    )


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
    grids: dict[str, dict[str, tuple[Any, ...]]] = Field({}, description="row -> its own grid, on top of `grid`")
    baseline: str | None = Field(
        None, description="row that the others are compared with; default: the first non-start"
    )
    select: str = Field("preference_accuracy", description="figure that grid points are chosen by")
    judges: tuple[Any, ...] = Field((), description="judges of the sampled replies, as eval.judges in a recipe")
    samples: Sampling = Field(Sampling(), description="how replies are sampled")
    best_of: tuple[Annotated[int, Field(ge=1, le=MOST_DRAWS)], ...] = Field(
        (), description="N of best-of-N, such as [1, 4, 16, 64]: as many replies to a prompt are drawn as the largest"
    )
    best_of_judge: Any = Field(
        None,
        description="judge whose score picks the best reply: a name, or {name: reward_model, from: rm.yaml}",
    )
    best_of_rows: tuple[str, ...] | None = Field(
        None, description="rows that best-of-N is measured of; null: every row"
    )
    frontier: FrontierConfig | None = Field(
        None, description="frontiers of reward against KL, from `eval.replies.every` of the recipes; null: none"
    )
    allow_different_data: bool = Field(False, description="allow rows on different data or from different starts")
    jobs: Annotated[int, NoEffect] = Field(1, ge=1, description="runs at a time")
    executor: Annotated[Any, NoEffect] = Field(
        None, description="where runs are worked on: an executor; null: here, or `local` with several jobs"
    )

    @field_validator("grid", mode="before")
    @classmethod
    def _lists_of_values(cls, value: Any) -> Any:
        return _grid(value) if isinstance(value, Mapping) else value

    @field_validator("grids", mode="before")
    @classmethod
    def _lists_of_rows(cls, value: Any) -> Any:
        return _grids(value)

    @field_validator("rows", mode="before")
    @classmethod
    def _lists_or_grids(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: _grids(own) if isinstance(own, Mapping) else _values(own) for key, own in value.items()}

    @model_validator(mode="after")
    def _has_values(self) -> Comparison:
        own = {f"grids, {label}": grid for label, grid in self.grids.items()}
        for name, given in {"grid": self.grid, "rows": self.rows, **own}.items():
            for key, values in given.items():  # type: ignore[attr-defined]
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

    @field_validator("best_of", mode="before")
    @classmethod
    def _list_of_counts(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("best_of")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _best_of_is_whole(self) -> Comparison:
        if self.best_of and self.best_of_judge is None:
            raise ValueError("best_of needs best_of_judge, the judge whose score picks the best reply")
        if self.best_of and not self.samples.prompts:
            raise ValueError("best_of draws replies, and samples.prompts is 0")
        if self.best_of and not self.samples.main:
            raise ValueError("best_of draws several replies, which are all equal at temperature 0: list another one")
        if not self.best_of and (self.best_of_judge is not None or self.best_of_rows is not None):
            raise ValueError("best_of_judge and best_of_rows need best_of, such as [1, 4, 16, 64]")
        return self

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
    judges = plain.get("judges")
    for judge in [plain.get("best_of_judge"), *(judges if isinstance(judges, list) else [judges])]:
        if isinstance(judge, dict) and isinstance(judge.get("from"), str):
            beside = path.parent / judge["from"]  # as in a recipe: beside the file, else as on the command line
            judge["from"] = str(beside.absolute()) if beside.is_file() else judge["from"]
    if isinstance(plain.get("set"), dict):
        plain["set"] = [f"{key}={value}" for key, value in plain["set"].items()]
    return node, validate_comparison(plain, node)


def _values(written: Any) -> Any:
    """Return a list of values; a single value needs no brackets."""
    return written if isinstance(written, list | tuple) else [written]


def _grids(written: Any) -> Any:
    """Return name -> grid of lists."""
    return {name: _grid(grid) for name, grid in written.items()} if isinstance(written, Mapping) else written


def _grid(written: Any) -> Any:
    """Return key -> list of values; anything else is a mistake that validation finds."""
    return {key: _values(some) for key, some in written.items()} if isinstance(written, Mapping) else written or {}


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


def no_such_row(label: str, where: str, labels: Sequence[str]) -> UserError:
    """Return the error for a key that names a row which the table does not have."""
    close = nearest(label, labels)
    expected = "" if close else f"one of {', '.join(labels)}"
    return UserError(f"no row is called '{label}'", where=where, nearest=close, expected=expected)
