"""`alignzoo data`: look at the rows that a recipe trains on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.core.redaction import printable

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

    from alignzoo.core.console import Console
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.trees import TokenIds, Tree
    from alignzoo.recipe.resolved import Resolved

STYLES = {"prompt": "dim", "context": "yellow", **dict.fromkeys(("chosen", "desirable", "rank_1"), "green")}


@click.group(name="data")
def command() -> None:
    """Look at a recipe's data."""


@command.command(name="inspect")
@recipe_arguments
@click.option("--rows", "count", default=3, show_default=True, type=click.IntRange(min=0), help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON, with every skipped row.")
def inspect(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], count: int, as_json: bool) -> None:
    """Print counts, token lengths and a few rows.

    Counts are rows read, used, truncated and skipped by reason. A row shows the prompt, then ⟦the scored tokens⟧ of
    each completion, with a | (on a terminal, a shade) between tokens.
    """
    from alignzoo.core.console import Console, Screen
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.statistics import tokenization_notes
    from alignzoo.data.token_store import TokenStore
    from alignzoo.recipe.load import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    reader = RowReader(resolved.recipe.data)
    tokenizer = tokenizer_of(resolved, reader)
    found = TokenStore(resolved, tokenizer).get(reader, Screen().info)
    train, report = found.train, found.report
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True)
    _counts(console, report)
    for line in tokenization_notes(report, resolved.recipe.tokens.thinking):
        console.print(line)
    _lengths(console, report)
    for i, tree in enumerate(train.trees[:count]):
        _show(console, tree, train.trees.names(i), tokenizer)


def _counts(console: Console, report: dict[str, Any]) -> None:
    left_out = f", {report['left_out']:,} beyond the limits on rows" if report["left_out"] else ""
    console.print(
        f"{report['read']:,} rows read, {report['used']:,} used ({report['train']:,} to train on, "
        f"{report['held_out']:,} held out: {report['held_out_is']}), {report['skipped']:,} skipped{left_out}"
    )
    for reason, number in report["skipped_by_reason"].items():
        console.print(f"  skipped: {number:,} {reason}")
    prompts, completions = report["truncated_prompts"], report["truncated_completions"]
    console.print(f"truncated: {prompts:,} prompts, the completions of {completions:,} rows")
    console.print(f"in both splits: {report['in_both_splits']:,} held-out rows are also training rows")
    console.print(f"labels flipped: {report['flipped']:,}")


def _lengths(console: Console, report: dict[str, Any]) -> None:
    console.print(f"\n{'tokens':<12}{'mean':>8}{'median':>8}{'p95':>8}{'max':>8}")
    for name, line in report["lengths"].items():
        console.print(f"{name:<12}{line['mean']:>8}{line['median']:>8.0f}{line['p95']:>8.0f}{line['max']:>8}")


def _show(console: Console, tree: Tree, names: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    from rich.text import Text

    from alignzoo.models.tokenizers import decode

    def pieces(tokens: TokenIds, style: str) -> Text:
        words = [printable(word) for word in decode(tokenizer, tokens[:, None])]
        if not console.is_terminal:
            return Text("|".join(map(str, words)))
        return Text.assemble(*((str(word), f"{style} reverse" if i % 2 else style) for i, word in enumerate(words)))

    name = tree.id.replace("\n", "\\n")
    console.print(f"\n--- {name}: {len(tree.prompt)} prompt tokens")
    console.print(pieces(tree.prompt, STYLES["prompt"]))
    for name, branch in zip(names, tree.branches, strict=True):
        own = f", after {branch.context} tokens of its own context" if branch.context else ""
        own += f", in {len(branch.spans)} spans" if len(branch.spans) > 1 else ""
        console.print(f"{name.replace('_', ' ')} ({branch.scored} scored{own})")
        line, at = Text(), 0
        for start, stop in branch.spans.tolist():
            line.append_text(pieces(branch.tokens[at:start], STYLES["context"]))
            line.append_text(Text.assemble("⟦", pieces(branch.tokens[start:stop], STYLES.get(name, "red")), "⟧"))
            at = stop
        console.print(line)


def tokenizer_of(resolved: Resolved, reader: RowReader) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the first recipe of a chain, which the others share.

    A tokenizer that is trained reads that recipe's rows: `reader`, where the data are the same.
    """
    from alignzoo.data.row_reader import RowReader
    from alignzoo.models.tokenizers import load_tokenizer

    bottom = resolved.first
    own = bottom.data_fingerprint == resolved.data_fingerprint
    return load_tokenizer(bottom.recipe.model, reader if own else RowReader(bottom.recipe.data))
