"""Sources -> preference rows -> token trees, in the shape that an objective takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.data.report import data_report
from alignzoo.data.rows import Row
from alignzoo.data.shapes import measurable, shape, with_columns, with_mismatched
from alignzoo.data.split import Rows, read_rows
from alignzoo.data.tokenise import Tokenised, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.metric import Metric
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
