"""Turn rows in memory into token trees in the shape that an objective takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.data.convert import check_measurable, convert_rows, further_pairs, with_columns
from alignzoo.data.mismatched import with_mismatched
from alignzoo.data.tokenize import TokenizedRows, tokenize
from alignzoo.interfaces.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.interfaces.metric import Metric
    from alignzoo.recipe.schema import Recipe


def prepare(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, metrics: Sequence[Metric] = ()
) -> TokenizedRows:
    """Convert, tokenize and complete rows as the recipe's objective and the metrics need them.

    Raises:
        UserError: The objective or a metric does not support the rows, or they can't be tokenized.
    """
    converted, skipped = convert_rows(rows, recipe.objective, recipe.data.pairs, recipe.data.train_on)
    prepared = tokenize(converted, tokenizer, recipe.tokens, train_on=recipe.data.train_on)
    prepared.skipped += skipped
    prepared.further_pairs = further_pairs(rows, converted, skipped)
    check_measurable(prepared.rows, metrics)
    prepared.trees = with_columns(prepared.trees, prepared.rows, recipe.objective, metrics)
    if recipe.objective.mismatched and len(prepared.trees):
        prepared.trees = with_mismatched(prepared.trees, recipe.tokens.max_length)
    return prepared
