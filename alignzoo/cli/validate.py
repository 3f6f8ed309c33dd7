"""`alignzoo validate`: every check that `run` makes before it loads a model, and the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import recipe_arguments

if TYPE_CHECKING:
    from alignzoo.data.row_reader import RowReader
    from alignzoo.interfaces.rows import Row
    from alignzoo.recipe.resolved import Resolved


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
        for key in ("objective", "starts from", "data", "training"):
            click.echo(f"  {key:<12}{plan[key]}")
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
    from alignzoo.data.convert import convert_side
    from alignzoo.data.row_reader import RowReader
    from alignzoo.rollouts.calendar import Calendar
    from alignzoo.training.preflight import preflight
    from alignzoo.training.run import folder_of

    preflight(resolved)
    needed = [plan for need in resolved.needs.values() for plan in _plans(need)]
    recipe, reader = resolved.recipe, RowReader(resolved.recipe.data)
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for is_held_out, row in reader.used():
        rows[is_held_out].append(row)
    for is_held_out, split in rows.items():
        convert_side(split, recipe, recipe.data, is_held_out)
    folder, train, read = folder_of(resolved), recipe.train, reader.plan.rows
    steps, words = train.steps(len(rows[False])), "rows"
    if recipe.rollout:
        calendar = Calendar(train, recipe.rollout, len(rows[False]), recipe.seed)
        steps, words = calendar.steps, f"prompts with {recipe.rollout.completions} draws each"
    return [*needed, {
        "name": recipe.name,
        "state": "finished" if folder.summary() is not None else "to run",
        "folder": str(folder.path),
        "objective": str(recipe.objective),
        "starts from": f"the run of {resolved.start.recipe.name}" if resolved.start else str(recipe.model),
        "data": f"{recipe.data.name}: {read.read:,} rows read, {len(rows[False]):,} to train on, "
                f"{len(rows[True]):,} held out, {len(read.skipped):,} skipped, {read.flipped:,} flipped"
                + _tokenization(resolved, reader),
        "training": f"{steps:,} steps of {train.batch_size} {words}, {train.optimizer.name} "
                    f"{train.optimizer.learning_rate:g} {train.schedule.name}, {train.precision}, seed {recipe.seed}",
    }]  # fmt: skip


def _tokenization(resolved: Resolved, reader: RowReader) -> str:
    """Rows in both splits and truncated rows; raises UserError when too few are left for a batch.

    A run finds the tokens in the store.
    """
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError, first_line
    from alignzoo.data.statistics import data_warnings
    from alignzoo.data.token_store import TokenStore
    from alignzoo.training.preflight import check_enough_rows

    try:
        tokenizer = tokenizer_of(resolved, reader)
    except UserError as error:  # no network here; there may be one where it runs
        counts = {"truncated_prompts": 0, "truncated_completions": 0, "in_both_splits": reader.plan.rows.in_both}
        return f"{data_warnings(counts)}; truncated: not known ({first_line(error)})"
    found = TokenStore(resolved, tokenizer).get(reader, Screen().info)
    check_enough_rows(found.train, found.held_out, resolved.recipe.train.batch_size)
    return data_warnings(found.report)
