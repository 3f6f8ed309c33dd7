"""Sources -> preference rows -> token trees, in the shape that an objective takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.data.convert import check_measurable, convert_rows, with_columns, with_mismatched
from alignzoo.data.splits import Rows, read_rows
from alignzoo.data.statistics import data_report
from alignzoo.data.tokenize import TokenizedRows, tokenize
from alignzoo.interfaces.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.interfaces.metric import Metric
    from alignzoo.recipe.schema import Recipe

__all__ = ["Rows", "TokenizedRows", "data_report", "prepare", "read_rows", "tokenize"]


def prepare(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, metrics: Sequence[Metric] = ()
) -> TokenizedRows:
    """Rows to trees as the recipe's objective takes them, with what metrics ask for beside it: shape of data, columns,
    mismatched completions."""
    fitting, skipped = convert_rows(rows, recipe.objective, recipe.data.pairs)
    found = tokenize(fitting, tokenizer, recipe.tokens)
    found.skipped += skipped
    check_measurable(found.rows, metrics)
    found.trees = with_columns(found.trees, found.rows, recipe.objective, metrics)
    if recipe.objective.mismatched and len(found.trees):
        found.trees = with_mismatched(found.trees, recipe.tokens.max_length)
    return found
