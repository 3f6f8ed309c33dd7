"""`alignzoo validate`: every check that `run` makes before it loads a model, and the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.cli.memory_table import memory_lines, memory_plan
from alignzoo.core.redaction import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.token_store import TokenizedDataset
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
@click.option("--time", "timed", is_flag=True, help="Also load the model, time a few steps and estimate the run.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(
    recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], exactness: bool, timed: bool, as_json: bool
) -> None:  # fmt: skip
    """Check RECIPE, its data and the recipes it needs, and print what a run would do."""
    check(recipe, overrides, overlays, as_json, exactness, timed)


def check(
    recipe: str, overrides: Sequence[str], overlays: Sequence[str], as_json: bool, exactness: bool = False,
    timed: bool = False,
) -> None:  # fmt: skip
    """Print the plan, as `run --dry-run` does.

    Args:
        recipe: The recipe's path or name.
        overrides: `key=value` words.
        overlays: Recipes to merge on top.
        as_json: Print JSON.
        exactness: Also measure how far scores are from the model's own forward, in nats per token.
        timed: Also time a few steps of each run that is not finished.

    Raises:
        UserError: The recipe, its data or its environment has a problem.
    """
    from alignzoo.recipe.load import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    plans = _plans(resolved, timed)
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
        for key in ("tokenizer", "drawing", "training", "numbers"):
            if key in plan:
                click.echo(printable(f"  {key:<12}{plan[key]}"))
        for n, line in enumerate(memory_lines(plan["memory"]) if "memory" in plan else ()):
            click.echo(f"  {'' if n else 'memory':<12}{line}")
        if "time" in plan:
            click.echo(f"  {'time':<12}{_time_line(plan['time'])}")
        for line in plan["warnings"]:
            click.echo(f"  {'warning':<12}{line}")
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


def _time_line(found: dict[str, Any]) -> str:
    from alignzoo.training.log_lines import short_time as duration

    if "unavailable" in found:
        return f"not estimated: {found['unavailable']}"
    parts = ", ".join(f"{name} {duration(found[name])}" for name in ("training", "reference", "evaluations"))
    return (
        f"about {duration(found['seconds'])} without replies and report: {parts} "
        f"({found['steps']:,} steps of {found['step']:.2g} s, from {found['timed']} timed)"
    )


def _plans(resolved: Resolved, timed: bool = False) -> list[dict[str, Any]]:
    """Check and plan each run, a run after those that it needs."""
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.core.console import Screen
    from alignzoo.data.dataset import tokenized_dataset
    from alignzoo.data.row_reader import RowReader, of_set
    from alignzoo.data.split_plan import HELD_OUT, TRAIN
    from alignzoo.data.statistics import data_lines
    from alignzoo.rollouts.calendar import Calendar
    from alignzoo.training.model_preflight import check_tokenizers, plan_memory
    from alignzoo.training.needed_runs import folder_of, undrawn_data
    from alignzoo.training.number_types import type_words
    from alignzoo.training.online import check_endings
    from alignzoo.training.policy import device_of
    from alignzoo.training.preflight import check_enough_rows, preflight, warm_up_note
    from alignzoo.training.timed_step import time_run

    preflight(resolved)
    device = device_of(resolved.recipe.train.device)
    needed = [plan for need in resolved.needs.values() for plan in _plans(need, timed)]
    recipe, reader = resolved.recipe, RowReader(resolved.recipe.data)
    undrawn = undrawn_data(resolved)
    if undrawn:
        words = f"those that {' and '.join(undrawn)} will draw"
        return [*needed, _head(resolved) | {"data": words, "rows": [], "numbers": type_words(recipe), "warnings": []}]
    _check_rows(reader, recipe)
    for name, source in recipe.eval.data.items():
        with of_set(name):
            _check_rows(RowReader(source, evaluation=True), recipe)
    tokenizer = tokenizer_of(resolved, reader)
    check_tokenizers(resolved, tokenizer)
    data = tokenized_dataset(resolved, tokenizer, Screen().info, reader=reader)  # a run finds it in the store
    if recipe.draw:
        check_endings(recipe.draw, tokenizer, "draw")
        prompts = reader.plan.count(TRAIN) + reader.plan.count(HELD_OUT)
        return [*needed, _head(resolved) | {
            "data": _counts(recipe, reader), "rows": data_lines(data.report, recipe),
            "tokenizer": _tokenizer_line(tokenizer, recipe, data, reader),
            "drawing": f"{recipe.draw.completions} completions of at most {recipe.draw.max_new_tokens} tokens for each "
                       f"of {prompts:,} prompts, at temperature {recipe.draw.temperature:g}, on {device}, "
                       f"seed {recipe.seed}",
            "numbers": type_words(recipe), "warnings": [],
        }]  # fmt: skip
    check_enough_rows(data, recipe.train.batch_size)
    folder, train, plan = folder_of(resolved), recipe.train, reader.plan
    rows = plan.count(TRAIN)
    steps, words = train.steps(rows), "rows"
    if recipe.rollout:
        calendar = Calendar(train, recipe.rollout, rows, recipe.seed)
        steps, words = calendar.steps, f"prompts with {recipe.rollout.completions} draws each"
    memory = plan_memory(resolved, tokenizer, data, device)
    taken = time_run(resolved, tokenizer, data, Screen()) if timed and folder.summary() is None else None
    return [*needed, _head(resolved) | {
        "data": _counts(recipe, reader),
        "rows": data_lines(data.report, recipe),
        "tokenizer": _tokenizer_line(tokenizer, recipe, data, reader),
        "training": f"{steps:,} steps of {train.batch_size} {words}, {train.optimizer.name} "
                    f"{train.optimizer.learning_rate:g} {train.schedule.name}, on {device}, seed {recipe.seed}",
        "numbers": type_words(recipe),
        "memory": None if memory is None else memory_plan(memory, device),
        **({} if taken is None else {"time": taken}),
        "warnings": [note for note in (warm_up_note(train, steps),) if note],
    }]  # fmt: skip


def _head(resolved: Resolved) -> dict[str, Any]:
    """Return what a plan has of every run."""
    from alignzoo.training.needed_runs import folder_of

    recipe, folder = resolved.recipe, folder_of(resolved)
    return {
        "name": recipe.name,
        "state": "finished" if folder.summary() is not None else "to run",
        "folder": str(folder.path),
        "objective": "none: it draws a data set" if recipe.draw else str(recipe.objective),
        "starts from": f"the run of {resolved.start.recipe.name}" if resolved.start else str(recipe.model),
    }


def _counts(recipe: Recipe, reader: RowReader) -> str:
    from alignzoo.data.split_plan import HELD_OUT, TRAIN

    plan = reader.plan
    return (
        f"{recipe.data.name}: {plan.rows.read:,} rows read, {plan.count(TRAIN):,} to "
        f"{'draw for' if recipe.draw else 'train on'}, {plan.count(HELD_OUT):,} held out, "
        f"{len(plan.rows.skipped):,} skipped, {plan.rows.flipped:,} flipped"
    )


def _check_rows(reader: RowReader, recipe: Recipe) -> None:
    """Raise UserError for a row that the objective can't take."""
    from alignzoo.data.convert import convert_side

    rows = reader.used()
    while some := list(islice(rows, CHUNK)):
        for side in (False, True):
            prompts = not side or reader.plan.holds_prompts_out
            convert_side([row for held_out, row in some if held_out == side], recipe, reader.source, prompts)


def _tokenizer_line(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, data: TokenizedDataset, reader: RowReader
) -> str:
    """Return the tokenizer's kind and size, and the row on which its chat template was tried."""
    from alignzoo.data.chat_template import is_chat
    from alignzoo.training.preflight import FIRST_ROWS

    line = f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens"
    first = next((row for _, row in islice(reader.used(), FIRST_ROWS) if is_chat(row)), None)
    if first is None:
        return f"{line}; the rows are text, and use no chat template"
    index = next((i for i, id in enumerate(data.train.trees.ids) if id == first.id), 0)
    tree = data.train.trees[index]
    return f"{line}; chat template tried on {tree.id}: {len(tree.prompt):,} tokens of prompt"
