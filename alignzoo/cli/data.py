"""`alignzoo data`: look at the rows that a recipe trains on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import recipe_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.core.console import Console
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.token_store import TokenizedDataset
    from alignzoo.data.worst_rows import Worst
    from alignzoo.recipe.resolved import Resolved


@click.group(name="data")
def command() -> None:
    """Look at a recipe's data."""


@command.command(name="inspect")
@recipe_arguments
@click.option("--rows", "count", default=3, show_default=True, type=click.IntRange(min=0), help="Rows to show.")
@click.option("--row", "chosen", help="Show this row alone: its number, from 1, or its id.")
@click.option("--worst", type=click.Choice(["length", "overlap", "truncated"]), help="Show the worst rows of a kind.")
@click.option("--split", help="Rows to show: train (default), held_out, or the name of an evaluation set.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON, with every skipped row.")
def inspect(
    recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], count: int, chosen: str | None,
    worst: Worst | None, split: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print counts, token lengths and a few rows as the model sees them.

    Counts are rows read, used, truncated and skipped by reason, rows that are repeated, and rows that are trained on
    and evaluated. A row shows the role of each token at the left and ⟦the scored tokens⟧, with a | (on a terminal, a
    shade) between tokens.
    """
    from alignzoo.cli.shown import print_legend, print_row
    from alignzoo.core.console import Console, Screen
    from alignzoo.data.dataset import tokenized_dataset
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.shown_rows import find_rows, show_rows
    from alignzoo.data.statistics import data_lines, tokenization_notes
    from alignzoo.recipe.load import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    reader = RowReader(resolved.recipe.data)
    tokenizer = tokenizer_of(resolved, reader)
    found = tokenized_dataset(resolved, tokenizer, Screen().info, reader=reader)
    rows = _chosen(resolved, found, reader, chosen, worst, split, count)
    if as_json:
        click.echo(json.dumps(found.report, indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True)
    _counts(console, found.report)
    for line in [*data_lines(found.report, resolved.recipe),
                 *tokenization_notes(found.report, resolved.recipe.tokens.thinking)]:  # fmt: skip
        console.print(line)
    _lengths(console, found.report)
    console = Console()
    if rows:
        print_legend(console)
    elif worst and count:
        console.print(f"\n{_NONE[worst]}")
    places = [(name, index) for name, index, _ in rows]
    texts = find_rows(resolved, found, places, reader)
    wanted = [(*place, row) for place, row in zip(places, texts, strict=True)]
    for shown, (*_, words) in zip(show_rows(resolved, tokenizer, found, wanted), rows, strict=True):
        print_row(console, shown, words)


_NONE = {
    "length": "there is no row",
    "overlap": "no row is trained on and evaluated",
    "truncated": "no row is truncated",
}


def _chosen(
    resolved: Resolved, found: TokenizedDataset, reader: RowReader, chosen: str | None, worst: Worst | None,
    split: str | None, count: int,
) -> list[tuple[str, int, str]]:  # fmt: skip
    """Return split, index and description of each row to show.

    Raises:
        UserError: There is no such split or row.
    """
    from alignzoo.core.errors import UserError, nearest
    from alignzoo.data.worst_rows import worst_rows

    if split is not None and split not in found.splits:
        raise UserError(
            f"there are no rows of '{split}'", where="--split", expected=f"one of {', '.join(found.splits)}",
            nearest=nearest(split, found.splits),
        )  # fmt: skip
    if worst and chosen is not None:
        raise UserError("a row is shown, or the worst ones", where="--row, --worst", expected="one of the two")
    name = split or "train"
    if worst:
        return [(name, i, words) for i, words in worst_rows(worst, resolved, found, name, count, reader)]
    size = len(found.part(name).trees)
    if chosen is None:
        return [(name, i, "") for i in range(min(count, size))]
    number = int(chosen) if chosen.isdecimal() and len(chosen) <= len(str(size)) else 0
    if 1 <= number <= size:
        return [(name, number - 1, "")]
    for one in [split] if split else found.splits:
        for i, id in enumerate(found.part(one).trees.ids):
            if id == chosen:
                return [(one, i, "")]
    raise UserError(f"there is no row '{chosen}'", where="--row", expected=f"a number up to {size:,}, or a row's id")


def _counts(console: Console, report: dict[str, Any]) -> None:
    left_out = f", {report['left_out']:,} left out" if report["left_out"] else ""
    further = f" and {pairs:,} further pairs of lists" if (pairs := report.get("further_pairs")) else ""
    dropped = f", {report['deduplicated']:,} dropped as repeated" if report["deduplicated"] else ""
    console.print(
        f"{report['read']:,} rows read{further}, {report['used']:,} used ({report['train']:,} to train on, "
        f"{report['held_out']:,} held out: {report['held_out_is']}), {report['skipped']:,} skipped{dropped}{left_out}"
    )
    for reason, number in report["skipped_by_reason"].items():
        console.print(f"  skipped: {number:,} {reason}")
    console.print(f"labels flipped: {report['flipped']:,}")


def _lengths(console: Console, report: dict[str, Any]) -> None:
    console.print(f"\n{'tokens':<12}{'mean':>8}{'median':>8}{'p95':>8}{'max':>8}")
    for name, line in report["lengths"].items():
        console.print(f"{name:<12}{line['mean']:>8}{line['median']:>8.0f}{line['p95']:>8.0f}{line['max']:>8}")


def tokenizer_of(resolved: Resolved, reader: RowReader) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the first recipe of a chain, which the others share.

    A tokenizer that is trained reads that recipe's rows: `reader`, where the data are the same.
    """
    from alignzoo.data.row_reader import RowReader
    from alignzoo.models.tokenizers import load_tokenizer

    bottom = resolved.first
    own = bottom.data_fingerprint == resolved.data_fingerprint
    return load_tokenizer(bottom.recipe.model, reader if own else RowReader(bottom.recipe.data))
