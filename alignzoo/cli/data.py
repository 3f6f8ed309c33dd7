"""`alignzoo data`: look at what a recipe would train on."""

from __future__ import annotations

import json

import click

from alignzoo.cli.arguments import recipe_arguments


@click.group(name="data")
def command() -> None:
    """Look at a recipe's data."""


@command.command(name="inspect")
@recipe_arguments
@click.option("--rows", "count", default=3, show_default=True, type=click.IntRange(min=0), help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON, with every skipped row.")
def inspect(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], count: int, as_json: bool) -> None:
    """Rows read, used, skipped by reason, truncated; a table of token lengths; and a few rows with the boundary: the
    prompt, then ⟦the scored tokens⟧ of each completion, cut where tokens are cut.
    """
    from alignzoo.data import data_report, read_rows, tokenise
    from alignzoo.models import load_tokenizer
    from alignzoo.recipe import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    rows = read_rows(resolved.recipe.data)
    tokenizer = load_tokenizer(_first(resolved).recipe.model, rows.train)
    train, held_out = (tokenise(part, tokenizer, resolved.recipe.tokens) for part in (rows.train, rows.held_out))
    report = data_report(rows, train, held_out, resolved.recipe.data)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    click.echo(
        f"{report['read']:,} rows read, {report['used']:,} used ({report['train']:,} to train on, {report['held_out']:,} "
        f"held out: {report['held_out_is']}), {report['skipped']:,} skipped, {report['flipped']:,} labels flipped"
    )
    for reason, number in report["skipped_by_reason"].items():
        click.echo(f"  skipped: {number:,} {reason}")
    click.echo(f"{report['truncated_prompts']:,} prompts and {report['truncated_completions']:,} rows' completions truncated")
    click.echo(f"\n{'tokens':<10}{'mean':>8}{'median':>8}{'p95':>8}{'max':>8}")
    for name, line in report["lengths"].items():
        click.echo(f"{name:<10}{line['mean']:>8}{line['median']:>8.0f}{line['p95']:>8.0f}{line['max']:>8}")
    for tree in train.trees[:count]:
        click.echo(f"\n--- {tree.id}: {len(tree.prompt)} prompt tokens\n{_pieces(tokenizer, tree.prompt)}")
        for name, branch in zip(("chosen", "rejected"), tree.branches, strict=False):
            scored = _pieces(tokenizer, branch.tokens[branch.scored_from :])
            click.echo(f"{name} ({branch.scored} scored)\n{_pieces(tokenizer, branch.tokens[: branch.scored_from])}⟦{scored}⟧")


def _pieces(tokenizer, tokens) -> str:  # type: ignore[no-untyped-def]
    return "|".join(tokenizer.decode([token]) for token in tokens.tolist())


def _first(resolved):  # type: ignore[no-untyped-def]
    """The recipe at the bottom of a chain, whose tokenizer all the others use."""
    return _first(resolved.parent) if resolved.parent else resolved
