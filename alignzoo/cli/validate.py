"""`alignzoo validate`: every check that `run` makes before it loads a model, and the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.core.redaction import printable

if TYPE_CHECKING:
    from alignzoo.data.row_reader import RowReader
    from alignzoo.recipe.resolved import Resolved
    from alignzoo.recipe.schema import Recipe

CHUNK = 1_024
"""Rows that are checked at once."""


@click.command(name="validate")
@recipe_arguments
@click.option(
    "--exactness", is_flag=True,
    help="Also load the model and compare a few rows with its own forward. Takes the run's memory.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], exactness: bool, as_json: bool) -> None:
    """Check RECIPE, its data and the recipes it needs, and print what a run would do."""
    check(recipe, overrides, overlays, as_json, exactness)


def check(
    recipe: str, overrides: Sequence[str], overlays: Sequence[str], as_json: bool, exactness: bool = False
) -> None:
    """Print the plan, as `run --dry-run` does.

    Args:
        recipe: The recipe's path or name.
        overrides: `key=value` words.
        overlays: Recipes to merge on top.
        as_json: Print JSON.
        exactness: Also measure how far scores are from the model's own forward, in nats per token.

    Raises:
        UserError: The recipe, its data or its environment has a problem.
    """
    from alignzoo.recipe.load import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    plans = _plans(resolved)
    if exactness:
        from alignzoo.core.console import Screen
        from alignzoo.training.row_scores import exactness_figures

        plans[-1]["exactness"] = exactness_figures(resolved, Screen(quiet=as_json))
    if as_json:
        click.echo(json.dumps(plans, indent=2))
        return
    for plan in plans:
        click.echo(f"{plan['name']}  ({plan['state']}: {plan['folder']})")
        for key in ("objective", "starts from", "data"):
            click.echo(f"  {key:<12}{plan[key]}")
        for line in plan["rows"]:
            click.echo(printable(f"  {'':<12}{line}"))
        click.echo(f"  {'training':<12}{plan['training']}")
        if "exactness" in plan:
            click.echo(f"  {'exactness':<12}{_exactness_line(plan['exactness'])}")


def _exactness_line(found: dict[str, Any]) -> str:
    if "unavailable" in found:
        return f"not measured: {found['unavailable']}"
    words = (
        f"at most {found['difference']:.2g} nats a token from the model's own forward (limit {found['limit']:.2g}; "
        f"{found['rows']:,} rows, {found['tokens']:,} tokens, up to {found['longest']:,} long; "
        f"layout {found['layout']}: {found['reason']})"
    )
    return f"{words}: {found['worst']}" if found["over"] else words


def _plans(resolved: Resolved) -> list[dict[str, Any]]:
    """Check and plan each run, a run after those that it needs."""
    from alignzoo.data.row_reader import RowReader, of_set
    from alignzoo.data.split_plan import HELD_OUT, TRAIN
    from alignzoo.rollouts.calendar import Calendar
    from alignzoo.training.preflight import preflight
    from alignzoo.training.run import folder_of

    preflight(resolved)
    needed = [plan for need in resolved.needs.values() for plan in _plans(need)]
    recipe, reader = resolved.recipe, RowReader(resolved.recipe.data)
    _check_rows(reader, recipe)
    for name, source in recipe.eval.data.items():
        with of_set(name):
            _check_rows(RowReader(source, evaluation=True), recipe)
    folder, train, plan = folder_of(resolved), recipe.train, reader.plan
    rows, held_out = plan.count(TRAIN), plan.count(HELD_OUT)
    steps, words = train.steps(rows), "rows"
    if recipe.rollout:
        calendar = Calendar(train, recipe.rollout, rows, recipe.seed)
        steps, words = calendar.steps, f"prompts with {recipe.rollout.completions} draws each"
    return [*needed, {
        "name": recipe.name,
        "state": "finished" if folder.summary() is not None else "to run",
        "folder": str(folder.path),
        "objective": str(recipe.objective),
        "starts from": f"the run of {resolved.start.recipe.name}" if resolved.start else str(recipe.model),
        "data": f"{recipe.data.name}: {plan.rows.read:,} rows read, {rows:,} to train on, {held_out:,} held out, "
                f"{len(plan.rows.skipped):,} skipped, {plan.rows.flipped:,} flipped",
        "rows": _row_lines(resolved, reader),
        "training": f"{steps:,} steps of {train.batch_size} {words}, {train.optimizer.name} "
                    f"{train.optimizer.learning_rate:g} {train.schedule.name}, {train.precision}, seed {recipe.seed}",
    }]  # fmt: skip


def _check_rows(reader: RowReader, recipe: Recipe) -> None:
    """Raise UserError for a row that the objective can't take."""
    from alignzoo.data.convert import convert_side

    rows = reader.used()
    while some := list(islice(rows, CHUNK)):
        for side in (False, True):
            prompts = not side or reader.plan.holds_prompts_out
            convert_side([row for held_out, row in some if held_out == side], recipe, reader.source, prompts)


def _row_lines(resolved: Resolved, reader: RowReader) -> list[str]:
    """Return lines on the sources, truncation, repetition and overlap of the rows.

    Overlapping rows are trained on and evaluated. A run finds the tokens in the store. Raises UserError when too few
    rows are left for a batch.
    """
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError, first_line
    from alignzoo.data.dataset import tokenized_dataset
    from alignzoo.data.statistics import content_lines, data_lines, source_lines
    from alignzoo.training.preflight import check_enough_rows

    recipe, plan = resolved.recipe, reader.plan
    try:
        tokenizer = tokenizer_of(resolved, reader)
    except UserError as error:  # no network here; there may be one where it runs
        known = {key: getattr(plan.rows, key) for key in ("overlap", "duplicates", "deduplicated")}
        counts = known | {"truncated_prompts": 0, "truncated_completions": 0}
        lines = content_lines(counts, recipe.tokens, recipe.eval.allow_overlap)
        return [*source_lines(plan.rows.sources), *lines, f"truncated: not known ({first_line(error)})"]
    found = tokenized_dataset(resolved, tokenizer, Screen().info, reader=reader)
    check_enough_rows(found, recipe.train.batch_size)
    return data_lines(found.report, recipe)
