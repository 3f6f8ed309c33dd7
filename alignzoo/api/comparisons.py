"""`alignzoo.compare`: train recipes side by side, from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.api.inputs import recipe_file
from alignzoo.api.progress import screen_of
from alignzoo.api.resolve import Given, in_memory_overrides, resolve
from alignzoo.compare.checks import check_plan
from alignzoo.compare.exclusive import exclusive
from alignzoo.compare.plan import make_plan
from alignzoo.compare.pool import executor_of
from alignzoo.compare.runner import compare_plan, comparison_folder
from alignzoo.compare.spec import is_comparison, make_judges, read_comparison, validate_comparison
from alignzoo.core.door import read_json
from alignzoo.recipe.load import check_overlays
from alignzoo.recipe.parse import PYTHON, Node, Origin, from_value, read_overrides
from alignzoo.report.comparison.write import draw_finished
from alignzoo.training.records import as_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A finished comparison: its folder, with the table, plots and a report."""

    folder: Path

    @property
    def table(self) -> dict[str, Any]:
        """The content of table.json: rows, columns, every run, and the caption."""
        found: dict[str, Any] = read_json(self.folder / "table.json")
        return found

    @property
    def rows(self) -> Any:
        """The figures of each row: a pandas DataFrame, or a list of dictionaries without pandas.

        A column such as `preference_accuracy` has the mean on the test split, with `preference_accuracy.low` and
        `.high` the 95% interval, and with `.difference`, `.difference_low` and `.difference_high` the difference from
        the baseline.
        """
        return as_table([dict(_figures(row)) for row in self.table["rows"]])


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((key, row[key]) for key in ("label", "objective", "chosen", "problem"))
    for key, cell in row["figures"].items():
        yield key, cell["mean"]
        yield from ((f"{key}.{side}", cell[side]) for side in ("low", "high"))
        if by := cell["difference"]:
            yield f"{key}.difference", by["mean"]
            yield from ((f"{key}.difference_{side}", by[side]) for side in ("low", "high"))


def compare(
    recipes: Given | Sequence[Given],
    *,
    data: Any = None,
    model: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    overlays: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | Sequence[str] = (),
    quiet: bool | None = None,
    jobs: int | None = None,
    **settings: Any,
) -> ComparisonResult:
    """Train every recipe at every grid point and seed, and write a folder with the table.

    Finished runs are not repeated, and the same call continues a stopped comparison.

    Args:
        recipes: Recipes, each as for `run`; or one comparison file.
        data: Rows for every recipe, as for `run`.
        model: The start of every recipe, as for `run`.
        tokenizer: Its tokenizer.
        overlays: Recipe files merged over each recipe.
        overrides: Values of every recipe.
        quiet: Print no progress. By default it is shown in a notebook and on a terminal.
        jobs: Runs at a time. More than one are worked on in processes of their own, which know no class that is
            defined in this one.
        **settings: The other keys of a comparison file: `name`, `seeds`, `search_seeds`, `grid`, `grids`, `rows`,
            `baseline`, `select`, `judges`, `samples`, `best_of`, `best_of_judge`, `best_of_rows`, `frontier`,
            `allow_different_data`, `executor`.

    Raises:
        UserError: A recipe or a setting has a mistake. All are read before the first run.
        RunFailed: The table can't be drawn. A run that fails is marked in its row.
    """
    check_overlays(overlays)
    read_overrides(overrides)
    several: list[Any] = [*recipes] if isinstance(recipes, list | tuple) else [recipes]
    node, base = Node({}, Origin(PYTHON)), dict[str, Any]()
    classes: dict[type, None] = {}
    if len(several) == 1 and isinstance(several[0], str | Path) and is_comparison([str(several[0])]):
        node, found = read_comparison(Path(several[0]))
        base = found.model_dump()
    else:
        paths = []
        for one in several:
            if not isinstance(one, str | Path):
                resolved = resolve(one, data=data, model=model, tokenizer=tokenizer)
                classes |= dict.fromkeys(resolved.registry.in_memory)
                one = recipe_file(resolved)
            paths.append(str(one))
        base["recipes"] = paths
    words = [*_words(in_memory_overrides(data, model, tokenizer)), *_words(overrides)]
    base["overrides"] = [*base.get("overrides", ()), *words]
    base["overlays"] = [*base.get("overlays", ()), *map(str, overlays)]
    own, samples = base.pop("samples", {}), settings.pop("samples", {})
    samples = own | dict(samples) if isinstance(samples, Mapping) else samples
    plain = {**base, **settings, "samples": samples} | ({} if jobs is None else {"jobs": jobs})
    comparison = validate_comparison(
        plain, Node({**node.value, **from_value(plain, Origin(PYTHON)).value}, node.origin)
    )
    judges = make_judges(comparison.judges, node)
    for judge in judges:
        judge.ready()
    plan = make_plan(comparison, list(classes))
    check_plan(plan)
    executor = executor_of(plan, node)
    screen = screen_of(quiet)
    with exclusive(comparison_folder(plan), screen):
        folder = compare_plan(plan, judges, screen, "alignzoo.compare(...)", executor)
        draw_finished(folder)
    return ComparisonResult(folder)


def _words(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return overrides as words of a command line, with their values as JSON."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(from_value(value, Origin(PYTHON)).plain())}" for key, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)
