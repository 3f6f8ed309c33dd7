"""Sources -> preference rows -> token trees, in the shape that an objective takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.data.convert import measurable, shape, with_columns, with_mismatched
from alignzoo.data.splits import Rows, read_rows
from alignzoo.data.statistics import data_report
from alignzoo.data.tokenize import Tokenised, tokenise
from alignzoo.interfaces.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.interfaces.metric import Metric
    from alignzoo.recipe.schema import Recipe

__all__ = ["Rows", "Tokenised", "data_report", "prepare", "read_rows", "tokenise"]


def prepare(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, metrics: Sequence[Metric] = ()
) -> Tokenised:
    """Rows to trees as the recipe's objective takes them, with what metrics ask for beside it: shape of data, columns,
    mismatched completions."""
    fitting, skipped = shape(rows, recipe.objective, recipe.data.pairs)
    found = tokenise(fitting, tokenizer, recipe.tokens)
    found.skipped += skipped
    measurable(found.rows, metrics)
    found.trees = with_columns(found.trees, found.rows, recipe.objective, metrics)
    if recipe.objective.mismatched and len(found.trees):
        found.trees = with_mismatched(found.trees, recipe.tokens.max_length)
    return found
