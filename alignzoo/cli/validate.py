"""`alignzoo validate`: everything that `run` checks before it loads a model, and the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
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
    help="Also load the model and score a few rows by its own forward. Slow: it takes the run's weights and memory.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], exactness: bool, as_json: bool) -> None:
    """Check RECIPE, the recipe it starts from, and that their data can be read; print what a run would do."""
    check(recipe, overrides, overlays, as_json, exactness)


def check(
    recipe: str, overrides: Sequence[str], overlays: Sequence[str], as_json: bool, exactness: bool = False
) -> None:
    """Print the plan, or raise UserError with everything that is wrong. `run --dry-run` is this.

    `exactness`: also how far scores of the recipe's own model and data are from the model's own forward.
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
            click.echo(f"  {'exactness':<12}{_in_words(plan['exactness'])}")


def _in_words(found: dict[str, Any]) -> str:
    if "unavailable" in found:
        return f"can't be measured: {found['unavailable']}"
    words = (
        f"at most {found['difference']:.2g} nats a token from the model's own forward (limit {found['limit']:.2g}; "
        f"{found['rows']:,} rows, {found['tokens']:,} tokens, up to {found['longest']:,} long; "
        f"layout {found['layout']}: {found['reason']})"
    )
    return f"{words}: {found['worst']}" if found["over"] else words


def _plans(resolved: Resolved) -> list[dict[str, Any]]:
    """The plan of each run in the order in which they are made: first the one that the others start from."""
    from alignzoo.core.errors import UserError
    from alignzoo.core.paths import runs_root
    from alignzoo.data.convert import convert_rows
    from alignzoo.data.row_reader import RowReader
    from alignzoo.models.adapters import check_adapters_available

    recipe = resolved.recipe
    check_adapters_available(recipe.model)
    for reporter in recipe.reporters:
        reporter.ready()
    for judge in recipe.eval.judges:
        judge.ready()
    before = [plan for need in resolved.needs.values() for plan in _plans(need)]
    unread = RowReader(recipe.data)
    rows = unread.survey.rows
    used: tuple[list[Row], list[Row]] = ([], [])
    for is_held_out, row in unread.used():
        used[is_held_out].append(row)
    train_rows, held_out_rows = used
    for part in used:
        convert_rows(part, recipe.objective, recipe.data.pairs)
    train = recipe.train
    if len(train_rows) < train.batch_size:
        raise UserError(
            f"{len(train_rows)} training rows, fewer than one batch", where="train.batch_size",
            expected=f"at most {len(train_rows)} (got {train.batch_size})",
        )  # fmt: skip
    folder = runs_root() / f"{recipe.name}-{resolved.fingerprint[:8]}"
    model = recipe.model
    start = f"the run of {resolved.start.recipe.name}" if resolved.start else str(model)
    path = getattr(model, "path", None)
    if path and Path(path).is_absolute() and not (Path(path) / "config.json").is_file():
        raise UserError("no model there", where=f"model.path: {path}", expected="a folder with config.json")
    return [*before, {
        "name": recipe.name,
        "state": "done before" if (folder / "summary.json").is_file() else "to run",
        "folder": str(folder),
        "objective": str(recipe.objective),
        "starts from": start,
        "data": f"{recipe.data.name}: {rows.read:,} rows read, {len(train_rows):,} to train on, "
                f"{len(held_out_rows):,} held out, {len(rows.skipped):,} skipped, {rows.flipped:,} flipped"
                + _losses(resolved, unread),
        "training": f"{train.steps(len(train_rows)):,} steps of {train.batch_size} rows, {train.optimizer.name} "
                    f"{train.optimizer.learning_rate:g} {train.schedule.name}, {train.precision}, seed {recipe.seed}",
    }]  # fmt: skip


def _losses(resolved: Resolved, unread: RowReader) -> str:
    """Rows in both splits and rows that are truncated. The tokens are kept: a run finds them in the store."""
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError
    from alignzoo.data.statistics import losses
    from alignzoo.data.token_store import TokenStore

    try:
        tokenizer = tokenizer_of(resolved, unread)
    except UserError as error:  # no network; a run may have it
        counts = {"truncated_prompts": 0, "truncated_completions": 0, "in_both_splits": unread.survey.rows.in_both}
        return f"{losses(counts)}; truncated: not known ({str(error).splitlines()[0]})"
    return losses(TokenStore(resolved, tokenizer).get(unread, Screen().info).report)
